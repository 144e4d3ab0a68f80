//! Compiles the messages to Rust. No `protoc` is needed: `protox` reads them.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/wire/evenkeel.proto");
    let files = protox::compile(["src/wire/evenkeel.proto"], ["src/wire"])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
