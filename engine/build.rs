//! Links the speech libraries of the distribution, and compiles the .proto files without protoc.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
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
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    println!("cargo:rerun-if-changed={}", protos.display());
    let roots = ["health", "riva_asr", "riva_tts"].map(|name| format!("riva/proto/{name}.proto"));
    let files = protox::compile(roots, [&protos])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .include_file("services.rs")
        .compile_fds(files)?;
    Ok(())
}
