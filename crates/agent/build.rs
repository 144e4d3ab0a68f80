//! Compiles the service between agents; its messages are `decide`'s. No `protoc` is needed: `protox` reads them.
//! Lists the files of the dashboard, if `cargo xtask web` has built it: without it there are none, and no Node.js is needed.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where the dashboard is built; the folder above is always there, so that cargo sees when it comes.
const SITE: &str = "../../web/dist/site";

fn main() -> Result<(), Box<dyn Error>> {
    dashboard()?;
    println!("cargo:rerun-if-changed=src/net/peer.proto");
    println!("cargo:rerun-if-changed=src/net/trust.proto");
    println!("cargo:rerun-if-changed=src/net/look.proto");
    println!("cargo:rerun-if-changed=../decide/src/wire/evenkeel.proto");
    let files = protox::compile(
        ["src/net/peer.proto", "src/net/trust.proto", "src/net/look.proto"],
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

/// Writes `dashboard.rs`: what `http/page.rs` serves.
fn dashboard() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../../web/dist");
    let site = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join(SITE);
    let mut list = "static FILES: &[File] = &[\n".to_owned();
    let index = site.join("index.html");
    if index.is_file() {
        list += &entry(&index, "index.html")?;
        let assets: Result<Vec<_>, _> = fs::read_dir(site.join("assets"))?.collect();
        let mut assets: Vec<PathBuf> = assets?.into_iter().map(|asset| asset.path()).collect();
        assets.sort();
        for asset in assets {
            let name = asset.file_name().and_then(|name| name.to_str()).ok_or("a name in UTF-8")?;
            if !name.ends_with(".gz") {
                list += &entry(&asset, &format!("assets/{name}"))?;
            }
        }
    }
    list += "];\n";
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("dashboard.rs"), list)?;
    Ok(())
}

fn entry(file: &Path, path: &str) -> Result<String, Box<dyn Error>> {
    let kind = match file.extension().and_then(|ending| ending.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => return Err(format!("{}: of what kind is it?", file.display()).into()),
    };
    let packed = PathBuf::from(format!("{}.gz", file.display()));
    let gzip =
        if packed.is_file() { format!("include_bytes!({packed:?})") } else { "&[]".to_owned() };
    let tag = format!("\"{:016x}\"", fnv(&fs::read(file)?));
    let mut entry = String::new();
    writeln!(
        entry,
        "File {{ path: {path:?}, kind: {kind:?}, tag: {tag:?}, plain: include_bytes!({file:?}), gzip: {gzip} }},"
    )?;
    Ok(entry)
}

/// FNV-1a: tells versions of a file apart.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
