//! The guest's initramfs: busybox, virtio's modules, and `guest/` compiled; written as a cpio archive of the "newc" form
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{finish, kernel};
use crate::folder;

const INIT: &str = include_str!("../../guest/init.sh");
const PROGRAM: &str = include_str!("../../guest/guest.c");
const APPLETS: [&str; 6] = ["sh", "mount", "insmod", "cat", "usleep", "ip"];

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

/// Where it is.
pub(super) fn path(lab: &Path) -> PathBuf {
    lab.join("initramfs.cpio")
}

/// Whether it is there and was made of the sources as they are now.
pub(super) fn current(lab: &Path) -> bool {
    path(lab).is_file()
        && fs::read_to_string(stamp(lab)).is_ok_and(|made_of| made_of == sources(lab))
}

/// Makes it.
pub(super) fn build(lab: &Path) -> anyhow::Result<()> {
    let (source, program) = (lab.join("guest.c"), lab.join("guest"));
    folder::write_whole(&source, PROGRAM.as_bytes())?;
    finish(
        Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-static", "-s", "-o"])
            .arg(&program)
            .arg(&source),
    )?;

    let mut archive = Archive::default();
    for name in ["bin", "dev", "lib", "proc", "sys"] {
        archive.add(name, FOLDER, b"");
    }
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| fs::read(path).ok());
    archive.add("bin/busybox", FILE, &busybox.context("no /bin/busybox")?);
    for applet in APPLETS {
        archive.add(&format!("bin/{applet}"), SYMLINK, b"busybox");
    }
    archive.add("bin/guest", FILE, &fs::read(&program)?);
    for name in kernel::MODULES {
        let module = kernel::module(lab, name);
        let bytes = fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
        archive.add(
            &format!("lib/{}", module.file_name().unwrap_or_default().to_string_lossy()),
            FILE,
            &bytes,
        );
    }
    archive.add("init", FILE, INIT.as_bytes());
    folder::write_whole(&path(lab), &archive.end())?;
    folder::write_whole(&stamp(lab), sources(lab).as_bytes())
}

fn stamp(lab: &Path) -> PathBuf {
    lab.join("initramfs.made-of")
}

fn sources(lab: &Path) -> String {
    let (release, modules) = (kernel::release(lab).unwrap_or_default(), kernel::MODULES.join(" "));
    format!("{release}\n{modules}\n{INIT}\n{PROGRAM}")
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // inode, mode, uid, gid, links, mtime, size, device, device of a node (two each), length of name, checksum
        let fields = [
            self.entries as usize,
            mode as usize,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}
