//! Compiles the service between agents; its messages are `decide`'s. No `protoc` is needed: `protox` reads them.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/net/peer.proto");
    println!("cargo:rerun-if-changed=src/net/trust.proto");
    println!("cargo:rerun-if-changed=../decide/src/wire/evenkeel.proto");
    let files = protox::compile(
        ["src/net/peer.proto", "src/net/trust.proto"],
        ["src/net", "../decide/src/wire"],
    )?;
    let mut config = tonic_prost_build::Config::new();
    // They hold keys.
    config.skip_debug([".evenkeel.trust.v1"]);
    tonic_prost_build::configure()
        // We connect by ourselves, in `net/guard.rs`.
        .build_transport(false)
        .extern_path(".evenkeel.v1", "::decide::wire::proto")
        .compile_fds_with_config(files, config)?;
    Ok(())
}
