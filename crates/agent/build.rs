//! Compiles the service between agents; its messages are `decide`'s. No `protoc` is needed: `protox` reads them.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/net/peer.proto");
    println!("cargo:rerun-if-changed=../decide/src/wire/evenkeel.proto");
    let files = protox::compile(["src/net/peer.proto"], ["src/net", "../decide/src/wire"])?;
    tonic_prost_build::configure()
        // We connect by ourselves, in `net/seal.rs`.
        .build_transport(false)
        .extern_path(".evenkeel.v1", "::decide::wire::proto")
        .compile_fds(files)?;
    Ok(())
}
