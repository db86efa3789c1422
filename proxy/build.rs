//! Generates the messages and servers of the gRPC services, without protoc.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    println!("cargo:rerun-if-changed={}", protos.display());
    let roots = ["health", "riva_asr", "riva_tts"].map(|name| format!("riva/proto/{name}.proto"));
    let files = protox::compile(roots, [&protos])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .include_file("services.rs")
        .compile_fds(files)?;
    Ok(())
}
