//! Temporary
use crate::units::*;
use std::time::Duration;
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub mode: Mode,
    pub hot: Hot,
    pub target: Target,
    pub worth_it: WorthIt,
    pub limits: Limits,
    pub copy: Copy,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    Off,
    Recommend,
    Automatic,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Mode {
    pub balance: Balance,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Hot {
    pub window: Duration,
    pub cpu_used: Share,
    pub cpu_pressure: Share,
    pub memory_used: Share,
    pub nic_used: Share,
    pub drops_per_second: u64,
    pub packets_per_second: Option<PacketsPerSec>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub cpu_used_max: Share,
    pub memory_used_max: Share,
    pub memory_reserve: Mib,
}
#[derive(Clone, Debug, PartialEq)]
pub struct WorthIt {
    pub gain_min: Cost,
    pub vm_rest: Duration,
    pub host_rest: Duration,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub moves_per_host: u32,
    pub moves_per_day: u32,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    pub bandwidth: Share,
    pub downtime: Duration,
}
impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode { balance: Balance::Recommend },
            hot: Hot {
                window: Duration::from_secs(120),
                cpu_used: Share(800),
                cpu_pressure: Share(200),
                memory_used: Share(900),
                nic_used: Share(800),
                drops_per_second: 100,
                packets_per_second: None,
            },
            target: Target {
                cpu_used_max: Share(700),
                memory_used_max: Share(850),
                memory_reserve: Mib(4096),
            },
            worth_it: WorthIt {
                gain_min: Cost::percent(10),
                vm_rest: Duration::from_secs(6 * 3600),
                host_rest: Duration::from_secs(300),
            },
            limits: Limits { moves_per_host: 1, moves_per_day: 20 },
            copy: Copy { bandwidth: Share(500), downtime: Duration::from_millis(100) },
        }
    }
}
impl Settings {
    pub fn hash(&self) -> u64 {
        7
    }
}
