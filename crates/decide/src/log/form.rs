//! How values are written down that have no form of their own, or another one for people: exactly, to the bit.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A float by its bits: no digit is lost, and what is not a number has a form too.
pub(crate) mod bits {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(it: &f64, to: S) -> Result<S::Ok, S::Error> {
        it.to_bits().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// Bytes as pairs of hexadecimal digits.
pub(crate) mod hex {
    use std::fmt::Write as _;

    use serde::de::Error as _;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(it: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(it.len() * 2);
        for byte in it {
            write!(text, "{byte:02x}").expect("a string takes all that is written");
        }
        to.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom("not pairs of hexadecimal digits");
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(wrong);
        let pair = |pair: &[u8]| match *pair {
            [high, low] => Ok(u8::try_from(digit(high)? << 4 | digit(low)?).expect("two digits")),
            _ => Err(wrong()),
        };
        text.as_bytes().chunks(2).map(pair).collect()
    }
}

/// An address with all that belongs to it: its text leaves out the flow of IPv6.
pub(crate) mod address {
    use std::net::{IpAddr, SocketAddr, SocketAddrV6};

    use super::*;

    pub(crate) fn serialize<S: Serializer>(it: &SocketAddr, to: S) -> Result<S::Ok, S::Error> {
        let (flow, scope) = match it {
            SocketAddr::V4(_) => (0, 0),
            SocketAddr::V6(v6) => (v6.flowinfo(), v6.scope_id()),
        };
        (it.ip(), it.port(), flow, scope).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
        let (ip, port, flow, scope) = <(IpAddr, u16, u32, u32)>::deserialize(from)?;
        Ok(match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, flow, scope).into(),
        })
    }
}

/// Settings as the code reckons with them. What an operator writes is another form, which cannot say everything.
pub(crate) mod settings {
    use std::borrow::Borrow;
    use std::time::Duration;

    use super::*;
    use crate::policy::expression::Expression;
    use crate::policy::expression::sections::{Admission, MigrationPolicy, VmPolicy};
    use crate::policy::rules::Rules;
    use crate::policy::rules::hours::Hours;
    use crate::policy::settings::{
        Balance, Copy, Encryption, Here, Hot, Limits, Migration, Mode, Settings, Shares, Spread,
        Target, Trigger, WorthIt,
    };
    use crate::units::{Cost, Mib, PacketsPerSec, Share};

    pub(crate) fn serialize<S: Serializer>(
        it: &impl Borrow<Settings>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        SettingsForm::serialize(it.borrow(), to)
    }

    pub(crate) fn deserialize<'de, T: From<Settings>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        SettingsForm::deserialize(from).map(T::from)
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Settings")]
    struct SettingsForm {
        #[serde(with = "ModeForm")]
        mode: Mode,
        #[serde(with = "HotForm")]
        hot: Hot,
        #[serde(with = "SpreadForm")]
        spread: Spread,
        #[serde(with = "TargetForm")]
        target: Target,
        #[serde(with = "WorthItForm")]
        worth_it: WorthIt,
        #[serde(with = "LimitsForm")]
        limits: Limits,
        #[serde(with = "CopyForm")]
        copy: Copy,
        #[serde(with = "MigrationForm", default)]
        migration: Migration,
        #[serde(with = "SharesForm", default)]
        share: Shares,
        #[serde(with = "VmPolicyForm", default)]
        vm_policy: VmPolicy,
        #[serde(with = "AdmissionForm", default)]
        admission: Admission,
        #[serde(with = "MigrationPolicyForm", default)]
        migration_policy: MigrationPolicy,
        rules: Rules,
        host: Here,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "VmPolicy")]
    struct VmPolicyForm {
        when: Option<Expression>,
        window: Option<Duration>,
        order: Option<Expression>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Admission")]
    struct AdmissionForm {
        accept: Option<Expression>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "MigrationPolicy")]
    struct MigrationPolicyForm {
        order: Option<Expression>,
        reject: Option<Expression>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Migration")]
    struct MigrationForm {
        encryption: Option<Encryption>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Shares")]
    struct SharesForm {
        cpu: bool,
        network: bool,
        headroom: Share,
        floor: Share,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Mode")]
    struct ModeForm {
        balance: Balance,
        trigger: Trigger,
        rules: Balance,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Spread")]
    struct SpreadForm {
        threshold: Share,
        gain_min: Cost,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Hot")]
    struct HotForm {
        window: Duration,
        cpu_used: Share,
        cpu_pressure: Share,
        memory_used: Share,
        nic_used: Share,
        drops_per_second: u64,
        packets_per_second: Option<PacketsPerSec>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Target")]
    struct TargetForm {
        cpu_used_max: Share,
        memory_used_max: Share,
        memory_reserve: Mib,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "WorthIt")]
    struct WorthItForm {
        gain_min: Cost,
        traffic_apart: Cost,
        vm_rest: Duration,
        host_rest: Duration,
        measure_after: Duration,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Limits")]
    struct LimitsForm {
        moves_per_host: u32,
        moves_per_day: u32,
        moves_per_cluster: Option<u32>,
        hours: Hours,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Copy")]
    struct CopyForm {
        bandwidth: Share,
        downtime: Duration,
        /// Absent in logs from before pauses grew. Those are read, and not replayed bit for bit from their first copy on.
        #[serde(default)]
        downtime_max: Duration,
        multifd: bool,
    }
}
