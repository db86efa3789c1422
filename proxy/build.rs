//! Generates the messages of Riva's gRPC services, without protoc.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    println!("cargo:rerun-if-changed={}", protos.display());
    let roots = ["riva_asr", "riva_tts"].map(|name| format!("riva/proto/{name}.proto"));
    let files = protox::compile(roots, [&protos])?;
    prost_build::Config::new().bytes(["."]).include_file("riva.rs").compile_fds(files)?;
    Ok(())
}
