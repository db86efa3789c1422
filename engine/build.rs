//! Links the speech libraries of the distribution: libflite and libpocketsphinx.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for library in [
        "flite_cmu_us_slt",
        "flite_cmu_us_rms",
        "flite_cmu_us_awb",
        "flite_cmu_us_kal16",
        "flite_usenglish",
        "flite_cmulex",
        "flite",
        "pocketsphinx",
        "sphinxbase",
    ] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
