//! The guest's kernel: Debian's cloud kernel, downloaded and unpacked but not installed.
//!
//! Guests boot fastest by PVH, for which QEMU needs the ELF file `vmlinux`. It lies compressed inside the bzImage,
//! at the offset and length that its header gives (Linux, Documentation/arch/x86/boot.rst: `setup_sects`,
//! `payload_offset`, `payload_length`); its last four bytes are the size of the unpacked kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::packages::Apt;
use super::{clear, finish};

const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// In the order in which they must be loaded.
pub(super) const MODULES: [&str; 10] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/virtio/virtio_balloon",
    "drivers/block/virtio_blk",
];

/// A block of LZ4's legacy format holds at most this much.
const BLOCK_MAX: usize = 8 << 20;

/// Where the unpacked kernel is.
pub(super) fn vmlinux(lab: &Path) -> PathBuf {
    lab.join("kernel/vmlinux")
}

/// Where a module is.
pub(super) fn module(lab: &Path, name: &str) -> PathBuf {
    lab.join("kernel").join(file_name(name))
}

/// Release of the kernel that is there.
pub(super) fn release(lab: &Path) -> Option<String> {
    fs::read_to_string(lab.join("kernel/release")).ok()
}

/// Whether it is there with every module: one that was fetched when guests needed fewer is not.
pub(super) fn complete(lab: &Path) -> bool {
    release(lab).is_some() && MODULES.iter().all(|name| module(lab, name).is_file())
}

/// Downloads and unpacks the kernel; gives the package's name.
pub(super) fn fetch(lab: &Path) -> anyhow::Result<String> {
    let (work, made) = (lab.join("kernel.work"), lab.join("kernel.partial"));
    clear(&work)?;
    clear(&made)?;
    fs::create_dir(&work)?;
    fs::create_dir(&made)?;
    let apt = Apt::prepare(lab)?;
    let depends = finish(apt.command("apt-cache").args(["depends", META_PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("{META_PACKAGE} depends on nothing"))?
        .to_owned();
    finish(apt.command("apt-get").args(["download", &package]).current_dir(&work))?;
    let archive = fs::read_dir(&work)?.next().context("apt-get downloaded nothing")??.path();
    finish(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(work.join("root")))?;

    let release = package.strip_prefix("linux-image-").context("not a kernel's package")?;
    let image = fs::read(work.join("root/boot").join(format!("vmlinuz-{release}")))?;
    fs::write(made.join("vmlinux"), unpack(&image)?)?;
    for name in MODULES {
        let from = work.join(format!("root/lib/modules/{release}/kernel/{name}.ko"));
        fs::copy(&from, made.join(file_name(name)))
            .with_context(|| format!("the package has no module {name}"))?;
    }
    fs::write(made.join("release"), release)?;
    clear(&lab.join("kernel"))?;
    fs::rename(&made, lab.join("kernel"))?;
    clear(&work)?;
    clear(&lab.join("apt"))?;
    Ok(package)
}

fn file_name(module: &str) -> String {
    format!("{}.ko", module.rsplit('/').next().unwrap_or(module))
}

/// The ELF file inside a bzImage.
fn unpack(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "no bzImage");
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        given => usize::from(given),
    };
    let start = (setup_sectors + 1) * 512 + number(image, 0x248)?;
    let payload = image.get(start..start + number(image, 0x24c)?).context("bzImage cut short")?;
    let (compressed, size) =
        payload.split_at_checked(payload.len().wrapping_sub(4)).context("empty payload")?;
    let size = number(size, 0)?;
    let kernel = match compressed {
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => unpack_lz4_legacy(blocks, size)?,
        [0x1f, 0x8b, ..] => bail!("the kernel is packed by gzip; only LZ4 is understood"),
        [0xfd, b'7', b'z', ..] => bail!("the kernel is packed by xz; only LZ4 is understood"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            bail!("the kernel is packed by zstd; only LZ4 is understood")
        }
        other => {
            bail!("the kernel is packed in an unknown way: {:02x?}", &other[..other.len().min(4)])
        }
    };
    ensure!(
        kernel.len() == size && kernel.starts_with(b"\x7fELF"),
        "the unpacked kernel is not what the header says"
    );
    Ok(kernel)
}

fn unpack_lz4_legacy(mut blocks: &[u8], size: usize) -> anyhow::Result<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(size);
    while !blocks.is_empty() {
        let length = number(blocks, 0)?;
        let block = blocks.get(4..4 + length).context("LZ4 block cut short")?;
        unpacked.extend(lz4_flex::block::decompress(block, BLOCK_MAX)?);
        blocks = &blocks[4 + length..];
    }
    Ok(unpacked)
}

/// The little-endian number of 32 bits at `offset`.
fn number(bytes: &[u8], offset: usize) -> anyhow::Result<usize> {
    let four = bytes
        .get(offset..offset + 4)
        .and_then(|four| <[u8; 4]>::try_from(four).ok())
        .context("cut short")?;
    Ok(usize::try_from(u32::from_le_bytes(four))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_lacks_a_module_is_not_complete() {
        let lab = std::env::temp_dir().join(format!("evenkeel-kernel-{}", std::process::id()));
        fs::create_dir_all(lab.join("kernel")).unwrap();
        fs::write(lab.join("kernel/release"), "6.1").unwrap();
        let complete = MODULES.map(|name| {
            let before = complete(&lab);
            fs::write(module(&lab, name), "").unwrap();
            before
        });
        assert_eq!((complete, super::complete(&lab)), ([false; MODULES.len()], true));
        fs::remove_dir_all(&lab).unwrap();
    }

    #[test]
    fn what_is_not_a_kernel_is_refused() {
        assert!(unpack(b"").is_err());
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(unpack(&image).is_err());
        image[0x1f1] = 1;
        image[0x24c] = 64;
        image[1024..1028].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
        assert!(format!("{:#}", unpack(&image).unwrap_err()).contains("zstd"));
        image[1024..1028].copy_from_slice(&[0x02, 0x21, 0x4c, 0x18]);
        image[1028..1032].copy_from_slice(&[0xff; 4]);
        assert!(format!("{:#}", unpack(&image).unwrap_err()).contains("cut short"));
    }
}
