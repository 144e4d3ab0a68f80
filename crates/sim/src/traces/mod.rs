//! What real VMs did, day by day, from files that are not part of the project: PlanetLab's and Bitbrains'.
//!
//! A folder holds `planetlab/DAY.csv` (`vm,name,t0,…`: percent of a processor, a row per VM) and `bitbrains/rnd-DAY.csv`
//! (a row per VM and slot), or the same with `.zst`. A slot is five minutes, a day 288 of them.
//!
//! **Invariant:** a row that cannot be read is an error with file and line, never a guess.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Slots in a day.
pub const SLOTS_A_DAY: usize = 288;
/// What a file may unpack to: the greatest of the real ones has 8 MB.
const UNPACKED_MAX: u64 = 64 << 20;

/// The loads of one VM, slot by slot; `None` where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guest {
    /// Its number in the trace.
    pub vm: u32,
    /// Virtual processors; 1 where the trace does not say.
    pub cores: u32,
    /// Its memory in MiB; 0 where the trace does not say.
    pub memory_mib: u64,
    /// Processor use, percent of all that it may have.
    pub cpu: Vec<Option<f64>>,
    /// Active memory, percent of its memory; empty where the trace does not say.
    pub memory: Vec<Option<f64>>,
    /// Traffic, both directions, KB/s; empty where the trace does not say.
    pub network: Vec<Option<f64>>,
    /// Of it what was sent, KB/s.
    pub sent: Vec<Option<f64>>,
    /// Its disks, both directions, KB/s; empty where the trace does not say.
    pub disk: Vec<Option<f64>>,
}

/// A day of PlanetLab, such as `20110303`.
///
/// # Errors
/// If the file is not there, or not what it should be; the text says which.
pub fn planetlab(traces: &Path, day: &str) -> anyhow::Result<Vec<Guest>> {
    let (path, text) = read(&traces.join("planetlab"), day)?;
    let guest = |line: &str| {
        let mut fields = line.split(',');
        let vm = fields.next().and_then(|vm| vm.parse().ok()).context("no VM number")?;
        let cpu: Vec<Option<f64>> =
            fields.skip(1).map(number).map(|v| v.map(Some)).collect::<Result<_, _>>()?;
        anyhow::ensure!(cpu.len() == SLOTS_A_DAY, "{} slots, a day has {SLOTS_A_DAY}", cpu.len());
        Ok(Guest { vm, cores: 1, cpu, ..Guest::default() })
    };
    rows(&path, &text, guest)
}

/// Days of Bitbrains one after the other, such as `2013-07-01`. Rows without cores or memory are left out.
///
/// # Errors
/// As [`planetlab`].
pub fn bitbrains(traces: &Path, days: &[&str]) -> anyhow::Result<Vec<Guest>> {
    let mut guests: BTreeMap<u32, Guest> = BTreeMap::new();
    let slots = days.len() * SLOTS_A_DAY;
    for (n, day) in days.iter().enumerate() {
        let (path, text) = read(&traces.join("bitbrains"), &format!("rnd-{day}"))?;
        let row = |line: &str| {
            let fields: Vec<f64> = line.split(',').map(number).collect::<Result<_, _>>()?;
            <[f64; 11]>::try_from(fields).ok().context("not eleven columns")
        };
        for row in rows(&path, &text, row)? {
            let [vm, slot, cores, cpu_max, cpu, memory_max, memory, read, written, received, sent] =
                row;
            if cores <= 0.0 || memory_max <= 0.0 || cpu_max <= 0.0 {
                continue;
            }
            let at = whole(slot);
            anyhow::ensure!(at < SLOTS_A_DAY, "{}: slot {slot}", path.display());
            let at = n * SLOTS_A_DAY + at;
            let vm = u32::try_from(whole(vm)).context("a VM's number")?;
            let guest = guests.entry(vm).or_insert_with(|| Guest {
                vm,
                cpu: vec![None; slots],
                memory: vec![None; slots],
                network: vec![None; slots],
                sent: vec![None; slots],
                disk: vec![None; slots],
                ..Guest::default()
            });
            guest.cores = u32::try_from(whole(cores)).context("a VM's cores")?;
            guest.memory_mib = whole(memory_max) as u64;
            guest.cpu[at] = Some(100.0 * cpu / cpu_max);
            guest.memory[at] = Some(100.0 * memory / memory_max);
            guest.network[at] = Some(received + sent);
            guest.sent[at] = Some(sent);
            guest.disk[at] = Some(read + written);
        }
    }
    Ok(guests.into_values().collect())
}

/// The file of that name, packed or not.
fn read(folder: &Path, name: &str) -> anyhow::Result<(PathBuf, String)> {
    let plain = folder.join(format!("{name}.csv"));
    let packed = folder.join(format!("{name}.csv.zst"));
    let mut text = String::new();
    if plain.exists() {
        let file = File::open(&plain).with_context(|| format!("opening {}", plain.display()))?;
        file.take(UNPACKED_MAX).read_to_string(&mut text)?;
        return Ok((plain, text));
    }
    let file = File::open(&packed).with_context(|| {
        format!("no trace {} (nor {name}.csv): say by --traces where they are", packed.display())
    })?;
    let unpacked = ruzstd::decoding::StreamingDecoder::new(file);
    let unpacked = unpacked.with_context(|| format!("unpacking {}", packed.display()))?;
    unpacked
        .take(UNPACKED_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("unpacking {}", packed.display()))?;
    Ok((packed, text))
}

/// All lines but the head, each read by `row`.
fn rows<T>(
    path: &Path,
    text: &str,
    row: impl Fn(&str) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty());
    lines
        .map(|(n, line)| row(line).with_context(|| format!("{}, line {}", path.display(), n + 1)))
        .collect()
}

fn number(field: &str) -> anyhow::Result<f64> {
    let value: f64 = field.trim().parse().with_context(|| format!("not a number: {field:?}"))?;
    anyhow::ensure!(value.is_finite() && value >= 0.0, "not a load: {field:?}");
    Ok(value)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of a trace are not negative, and `as` saturates"
)]
fn whole(value: f64) -> usize {
    value as usize
}
