//! The package of Red Hat's kin, of such a tree. The crate `rpm` writes it, so Debian's tools need not be there for that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};

use super::deb::said;
use super::scripts::script;
use super::{CONFIGURATION, DESCRIPTION, PROGRAMS, SUMMARY};

/// In the order of [`pack`].
pub(super) const SCRIPTS: [&str; 4] = ["pre", "post", "preun", "postun"];
/// Folders that are the package's alone, and go with it.
const FOLDERS: [&str; 2] = ["usr/share/doc/evenkeel", "usr/share/evenkeel"];
const LICENSE: &str = "Apache-2.0";

/// Packs the tree into a package in `folder`; gives its path.
pub(super) fn pack(tree: &Path, folder: &Path, version: &str) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let machine = std::env::consts::ARCH;
    let mut package = PackageBuilder::new("evenkeel", version, LICENSE, machine, SUMMARY);
    // The form that versions 8 and 9 can read too.
    package.using_config(BuildConfig::v4().compression(CompressionType::Gzip));
    package.description(DESCRIPTION);
    for path in files(tree)? {
        let to = format!("/{}", path.display());
        let options = FileOptions::new(&to).user("root").group("root");
        let options = if CONFIGURATION.contains(&to.as_str()) {
            options.config().noreplace()
        } else {
            options
        };
        package.with_file(tree.join(&path), options)?;
    }
    for path in folders(tree)? {
        package
            .with_dir_entry(FileOptions::dir(format!("/{}", path.display())).permissions(0o755))?;
    }
    for needed in needs(tree)? {
        package.requires(Dependency::any(needed));
    }
    for script in [Dependency::script_pre, Dependency::script_post, Dependency::script_preun] {
        package.requires(script("/bin/sh"));
    }
    package.requires(Dependency::script_post("systemd"));
    package.recommends(Dependency::any("qemu-kvm"));
    package.suggests(Dependency::any("libvirt-daemon-kvm"));
    let [pre, post, preun, postun] = SCRIPTS.map(|name| script("rpm", name));
    package.pre_install_script(pre?).post_install_script(post?);
    package.pre_uninstall_script(preun?).post_uninstall_script(postun?);
    let path = folder.join(format!("evenkeel-{version}-1.{machine}.rpm"));
    package.build().context("packing")?.write_file(&path).context("writing the package")?;
    Ok(path)
}

/// All files of the tree, by their paths in it, in their order.
fn files(tree: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    found(tree, tree, &|kind| !kind.is_dir())
}

fn folders(tree: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::from(FOLDERS.map(PathBuf::from));
    for folder in FOLDERS {
        all.append(&mut found(tree, &tree.join(folder), &fs::FileType::is_dir)?);
    }
    Ok(all)
}

fn found(
    tree: &Path,
    folder: &Path,
    wanted: &dyn Fn(&fs::FileType) -> bool,
) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if wanted(&kind) {
            all.insert(entry.path().strip_prefix(tree)?.to_owned());
        }
        if kind.is_dir() {
            all.append(&mut found(tree, &entry.path(), wanted)?);
        }
    }
    Ok(all)
}

/// The libraries that the programs use, in the words by which rpm's own packages offer them.
fn needs(tree: &Path) -> anyhow::Result<BTreeSet<String>> {
    let programs = PROGRAMS.map(|program| tree.join("usr/bin").join(program));
    Ok(libraries(&said(Command::new("objdump").arg("-p").args(&programs))?))
}

/// What `objdump -p` says of libraries, and of the versions of their symbols.
fn libraries(said: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut library = None;
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["NEEDED", name] => drop(all.insert(format!("{name}()(64bit)"))),
            ["required", "from", name] => library = Some(name.trim_end_matches(':').to_owned()),
            [hash, _flags, _number, version] if hash.starts_with("0x") => {
                let of = library.iter();
                all.extend(of.map(|library| format!("{library}({version})(64bit)")));
            }
            _ => library = None,
        }
    }
    // The loader is the C library's, and stands for no package of its own.
    all.retain(|needed| !needed.starts_with("ld-linux"));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_named_with_the_versions_of_their_symbols() {
        let said = "Dynamic Section:\n  NEEDED               libgcc_s.so.1\n  NEEDED               libc.so.6\n\
                    \x20 NEEDED               ld-linux-x86-64.so.2\n  INIT 0x1\n\nVersion References:\n\
                    \x20 required from ld-linux-x86-64.so.2:\n    0x0d696913 0x00 05 GLIBC_2.3\n\
                    \x20 required from libc.so.6:\n    0x069691b3 0x00 04 GLIBC_2.33\n    0x09691a75 0x00 03 GLIBC_2.2.5\n\n\
                    0x1 0x2 3 x\n";
        let needed: Vec<String> = libraries(said).into_iter().collect();
        assert_eq!(
            needed,
            [
                "libc.so.6()(64bit)",
                "libc.so.6(GLIBC_2.2.5)(64bit)",
                "libc.so.6(GLIBC_2.33)(64bit)",
                "libgcc_s.so.1()(64bit)",
            ]
        );
    }
}
