//! The settings file: what an empty one means, and what each mistake is answered with.

use std::time::Duration;

use decide::policy::expression::sections::{Admission, MigrationPolicy, VmPolicy};
use decide::policy::file;
use decide::policy::quantity::{
    duration_text, memory_text, parse_cost, parse_duration, parse_memory, parse_share, share_text,
};
use decide::policy::rules::Rules;
use decide::policy::rules::hours::Hours;
use decide::policy::settings::{
    Balance, Copy, Here, Hot, Limits, Migration, Mode, Settings, Shares, Spread, Target, Trigger,
    WorthIt,
};
use decide::units::{Cost, Mib, PacketsPerSec, Share};
use expect_test::{Expect, expect};
use proptest::prelude::*;

/// The sections of DESIGN.md §6, with the keys that exist.
const DESIGN: &str = r#"
[mode]
balance = "recommend"           # off | recommend | automatic
trigger = "hot"                 # hot | spread
rules   = "recommend"           # affinity and pins, separately
[hot]                           # nothing is balanced unless one of these holds
for              = "2min"
cpu_used         = "80%"
cpu_pressure     = "20%"        # share of time in which something waits for a CPU
memory_used      = "90%"        # page cache not counted
nic_used         = "80%"
drops_per_second = 100
# packets_per_second = 500000   # the NIC's own limit, where you know it
[spread]                        # for the trigger "spread" alone
threshold       = "0.5%"        # above the cluster's mean
gain_min        = "0.07%"
[target]                        # what a host may reach by taking a VM, next hour's peak
cpu_used_max    = "70%"
memory_used_max = "85%"         # guests at full size
memory_reserve  = "4GiB"
[worth_it]
gain_min        = "10%"         # relief beyond cost there and copy
traffic_apart   = "10%"         # each Gbit/s of traffic with VMs that stay
vm_rest         = "6h"
host_rest       = "5min"
measure_after   = "5min"
[limits]
moves_per_host    = 1           # in plus out
moves_per_day     = 20          # then recommend only, and alert
hours             = "any"       # or "Mon-Fri 20:00-06:00 Europe/Berlin"
[copy]
bandwidth     = "50%"
downtime      = "100ms"         # raised in steps to 500ms, then the move is abandoned
[share]                         # what a VM that arrives gets
cpu           = false
network       = false
headroom      = "50%"
floor         = "5%"
"#;

#[test]
fn an_empty_file_means_the_design() {
    let design = file::settings(DESIGN).unwrap();
    assert_eq!(file::settings("").unwrap(), design);
    assert_eq!(
        design,
        Settings {
            mode: Mode {
                balance: Balance::Recommend,
                trigger: Trigger::Hot,
                rules: Balance::Recommend
            },
            hot: Hot {
                window: Duration::from_secs(120),
                cpu_used: Share(800),
                cpu_pressure: Share(200),
                memory_used: Share(900),
                nic_used: Share(800),
                drops_per_second: 100,
                packets_per_second: None,
            },
            spread: Spread { threshold: Share(5), gain_min: Cost(70_000) },
            target: Target {
                cpu_used_max: Share(700),
                memory_used_max: Share(850),
                memory_reserve: Mib(4096)
            },
            worth_it: WorthIt {
                gain_min: Cost(10_000_000),
                traffic_apart: Cost(10_000_000),
                vm_rest: Duration::from_secs(6 * 3600),
                host_rest: Duration::from_secs(300),
                measure_after: Duration::from_secs(300),
            },
            limits: Limits {
                moves_per_host: 1,
                moves_per_day: 20,
                moves_per_cluster: None,
                hours: Hours::Any
            },
            copy: Copy {
                bandwidth: Share(500),
                downtime: Duration::from_millis(100),
                downtime_max: Duration::from_millis(500),
                multifd: false
            },
            migration: Migration::default(),
            share: Shares { cpu: false, network: false, headroom: Share(500), floor: Share(50) },
            vm_policy: VmPolicy::default(),
            admission: Admission::default(),
            migration_policy: MigrationPolicy::default(),
            rules: Rules::default(),
            host: Here::default(),
        }
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a line for each key")]
fn every_key_is_taken() {
    let text = r#"
mode = { balance = "automatic", trigger = "spread", rules = "off" }
spread = { threshold = "3%", gain_min = "0.3%" }
hot = { for = "5s", cpu_used = "81%", cpu_pressure = "21.5%", memory_used = "91%", nic_used = "82%", drops_per_second = 7, packets_per_second = 500_000 }
target = { cpu_used_max = "71%", memory_used_max = "86%", memory_reserve = "512 MiB" }
worth_it = { gain_min = "0.5%", traffic_apart = "0%", vm_rest = "1.5h", host_rest = "1d" }
limits = { moves_per_host = 2, moves_per_day = 3, moves_per_cluster = 4, hours = "Sun 22:00-23:00 UTC" }
copy = { bandwidth = "33%", downtime = "250ms", downtime_max = "1s", multifd = true }
migration = { encryption = "preferred" }
share = { cpu = true, network = true, headroom = "120%", floor = "0%" }
host = { labels = ["rack-a"], maintenance = true }
rules.group = [{ name = "web", kind = "anti-affinity", vms = ["web*"] }]
rules.pin = [{ vms = ["db"], hosts = ["host1"], labels = ["fast"], should = true }]
rules.exclude = [{ vms = ["old"], until = "2026-12-24T18:00Z" }]
rules.vm = [{ vms = ["db"], priority = 5, downtime = "50ms", auto_converge = true, copy_disks = true, rest = "1d", hours = "any", balance = "off", rules = "automatic" }]
"#;
    expect![[r#"
        Settings {
            mode: Mode {
                balance: Automatic,
                trigger: Spread,
                rules: Off,
            },
            hot: Hot {
                window: 5s,
                cpu_used: Share(
                    810,
                ),
                cpu_pressure: Share(
                    215,
                ),
                memory_used: Share(
                    910,
                ),
                nic_used: Share(
                    820,
                ),
                drops_per_second: 7,
                packets_per_second: Some(
                    PacketsPerSec(
                        500000,
                    ),
                ),
            },
            spread: Spread {
                threshold: Share(
                    30,
                ),
                gain_min: Cost(
                    300000,
                ),
            },
            target: Target {
                cpu_used_max: Share(
                    710,
                ),
                memory_used_max: Share(
                    860,
                ),
                memory_reserve: Mib(
                    512,
                ),
            },
            worth_it: WorthIt {
                gain_min: Cost(
                    500000,
                ),
                traffic_apart: Cost(
                    0,
                ),
                vm_rest: 5400s,
                host_rest: 86400s,
                measure_after: 300s,
            },
            limits: Limits {
                moves_per_host: 2,
                moves_per_day: 3,
                moves_per_cluster: Some(
                    4,
                ),
                hours: Some(
                    Window {
                        days: Some(
                            (
                                6,
                                6,
                            ),
                        ),
                        from: 1320,
                        to: 1380,
                        zone: "UTC",
                    },
                ),
            },
            copy: Copy {
                bandwidth: Share(
                    330,
                ),
                downtime: 250ms,
                downtime_max: 1s,
                multifd: true,
            },
            migration: Migration {
                encryption: Some(
                    Preferred,
                ),
            },
            share: Shares {
                cpu: true,
                network: true,
                headroom: Share(
                    1200,
                ),
                floor: Share(
                    0,
                ),
            },
            vm_policy: VmPolicy {
                when: None,
                window: None,
                order: None,
            },
            admission: Admission {
                accept: None,
            },
            migration_policy: MigrationPolicy {
                order: None,
                reject: None,
            },
            rules: Rules {
                group: [
                    Group {
                        name: "web",
                        kind: AntiAffinity,
                        vms: [
                            "web*",
                        ],
                    },
                ],
                pin: [
                    Pin {
                        vms: [
                            "db",
                        ],
                        hosts: [
                            "host1",
                        ],
                        labels: [
                            "fast",
                        ],
                        should: true,
                    },
                ],
                exclude: [
                    Exclude {
                        vms: [
                            "old",
                        ],
                        until: Some(
                            Until(
                                1798135200,
                            ),
                        ),
                    },
                ],
                vm: [
                    Own {
                        vms: [
                            "db",
                        ],
                        priority: Some(
                            5,
                        ),
                        downtime: Some(
                            50ms,
                        ),
                        auto_converge: Some(
                            true,
                        ),
                        copy_disks: Some(
                            true,
                        ),
                        rest: Some(
                            86400s,
                        ),
                        hours: Some(
                            Any,
                        ),
                        balance: Some(
                            Off,
                        ),
                        rules: Some(
                            Automatic,
                        ),
                    },
                ],
            },
            host: Here {
                labels: [
                    "rack-a",
                ],
                maintenance: true,
            },
        }
    "#]]
    .assert_debug_eq(&file::settings(text).unwrap());
}

fn refused(text: &str, expected: &Expect) {
    expected.assert_eq(&file::settings(text).expect_err("it is wrong").to_string());
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    refused(
        "[hot]\nfor = \"2min\"\ncpu_usd = \"80%\"\n",
        &expect![[
            r#"line 3, column 1, key hot.cpu_usd: unknown key "cpu_usd"; did you mean "cpu_used"?"#
        ]],
    );
    refused(
        "[hott]\nfor = \"2min\"\n",
        &expect![[r#"line 1, column 2, key hott: unknown key "hott"; did you mean "host"?"#]],
    );
    refused(
        "[limits]\nmoves_per_rack = 2\n",
        &expect![[
            r#"line 2, column 1, key limits.moves_per_rack: unknown key "moves_per_rack"; did you mean "moves_per_day"?"#
        ]],
    );
    refused(
        "[copy]\npost_copy = false\n",
        &expect![[
            r#"line 2, column 1, key copy.post_copy: unknown key "post_copy"; known are bandwidth, downtime, downtime_max, multifd"#
        ]],
    );
    refused(
        "hot = { fur = \"2min\" }\n",
        &expect![[r#"line 1, column 9, key hot.fur: unknown key "fur"; did you mean "for"?"#]],
    );
}

#[test]
fn a_wrong_word_or_duration_is_answered_with_an_example() {
    refused(
        "[mode]\nbalance = \"auto\"\n",
        &expect![[
            r#"line 2, column 11, key mode.balance: unknown value "auto"; known are off, recommend, automatic"#
        ]],
    );
    refused(
        "[mode]\nbalance = \"Automatic\"\n",
        &expect![[
            r#"line 2, column 11, key mode.balance: unknown value "Automatic"; did you mean "automatic"?"#
        ]],
    );
    refused(
        "[mode]\nbalance = true\n",
        &expect!["line 2, column 11, key mode.balance: wanted string or table"],
    );
    refused(
        "[hot]\nfor = 120\n",
        &expect![[
            r#"line 2, column 7, key hot.for: invalid type: integer "120", expected a duration above zero, up to 366d, such as "2min""#
        ]],
    );
    refused(
        "[hot]\nfor = \"2 minutes\"\n",
        &expect![[
            r#"line 2, column 7, key hot.for: "2 minutes" has the unit "minutes", which is none of us, ms, s, min, h, d; write a duration above zero, up to 366d, such as "2min""#
        ]],
    );
    refused(
        "[hot]\nfor = \"0s\"\n",
        &expect![[
            r#"line 2, column 7, key hot.for: "0s" is out of range; write a duration above zero, up to 366d, such as "2min""#
        ]],
    );
    refused(
        "[hot]\nfor = \"2000d\"\n",
        &expect![[
            r#"line 2, column 7, key hot.for: "2000d" is out of range; write a duration above zero, up to 366d, such as "2min""#
        ]],
    );
}

#[test]
fn a_wrong_share_is_answered_with_an_example() {
    refused(
        "[hot]\ncpu_used = \"0.8\"\n",
        &expect![[
            r#"line 2, column 12, key hot.cpu_used: "0.8" has no unit; write a share from 0% to 100%, such as "80%""#
        ]],
    );
    refused(
        "[hot]\ncpu_used = 0.8\n",
        &expect![[
            r#"line 2, column 12, key hot.cpu_used: invalid type: floating point "0.8", expected a share from 0% to 100%, such as "80%""#
        ]],
    );
    refused(
        "[hot]\ncpu_used = \"101%\"\n",
        &expect![[
            r#"line 2, column 12, key hot.cpu_used: "101%" is out of range; write a share from 0% to 100%, such as "80%""#
        ]],
    );
    refused(
        "[hot]\ncpu_used = \"-5%\"\n",
        &expect![[
            r#"line 2, column 12, key hot.cpu_used: "-5%" does not begin with a number; write a share from 0% to 100%, such as "80%""#
        ]],
    );
    refused(
        "[hot]\ncpu_used = \"80.05%\"\n",
        &expect![[
            r#"line 2, column 12, key hot.cpu_used: "80.05%" is finer than what is kept; write a share from 0% to 100%, such as "80%""#
        ]],
    );
}

#[test]
fn a_wrong_count_amount_or_cost_is_answered_with_an_example() {
    refused(
        "[hot]\ndrops_per_second = \"100\"\n",
        &expect![[
            r#"line 2, column 20, key hot.drops_per_second: invalid type: string "100", expected a whole number from 1 to 1000000000000, without quotes and unit, such as 100"#
        ]],
    );
    refused(
        "[hot]\ndrops_per_second = -1\n",
        &expect![[
            r#"line 2, column 20, key hot.drops_per_second: invalid value: integer "-1", expected a whole number from 1 to 1000000000000, without quotes and unit, such as 100"#
        ]],
    );
    refused(
        "[hot]\npackets_per_second = 0\n",
        &expect![[
            r#"line 2, column 22, key hot.packets_per_second: invalid value: integer "0", expected a whole number from 1 to 1000000000000, without quotes and unit, such as 100"#
        ]],
    );
    refused(
        "[target]\nmemory_reserve = \"4GB\"\n",
        &expect![[
            r#"line 2, column 18, key target.memory_reserve: "4GB" has the unit "GB", which is none of MiB, GiB, TiB; write an amount of memory, such as "4GiB""#
        ]],
    );
    refused(
        "[target]\nmemory_reserve = \"99999999999999999999GiB\"\n",
        &expect![[
            r#"line 2, column 18, key target.memory_reserve: "99999999999999999999GiB" is out of range; write an amount of memory, such as "4GiB""#
        ]],
    );
    refused(
        "[worth_it]\ngain_min = \"0%\"\n",
        &expect![[
            r#"line 2, column 12, key worth_it.gain_min: "0%" is out of range; write a percentage of pressure above 0% and up to 1000%, such as "10%""#
        ]],
    );
    refused(
        "[limits]\nmoves_per_host = 0\n",
        &expect![[
            r#"line 2, column 18, key limits.moves_per_host: invalid value: integer "0", expected a whole number from 1 to 10000, without quotes and unit, such as 100"#
        ]],
    );
    refused(
        "[limits]\nmoves_per_day = 3000000000\n",
        &expect![[
            r#"line 2, column 17, key limits.moves_per_day: invalid value: integer "3000000000", expected a whole number from 1 to 10000, without quotes and unit, such as 100"#
        ]],
    );
    refused(
        "[copy]\nbandwidth = \"0%\"\n",
        &expect![[
            r#"line 2, column 13, key copy.bandwidth: "0%" is out of range; write a share from 0.1% to 100%, such as "50%""#
        ]],
    );
}

#[test]
fn what_is_not_toml_is_answered_with_its_place() {
    refused(
        "[hot\nfor = \"2min\"\n",
        &expect!["line 1, column 5: unclosed table; close the section's name: [name]"],
    );
    refused(
        "[hot]\nfor = 2min\n",
        &expect![[r#"line 2, column 7: string values must be quoted; put it between quotes: "…""#]],
    );
    refused(
        "[hot]\nfor = \"2min\"\nfor = \"3min\"\n",
        &expect!["line 3, column 1: duplicate key; a section or key may stand once: join the two"],
    );
}

/// An agent's own file has sections of its own beside ours.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    name: String,
    #[serde(default)]
    hot: Hot,
    #[serde(default)]
    copy: Copy,
}

#[test]
fn sections_serve_in_another_file() {
    let read: AgentFile = file::read("name = \"a\"\n[hot]\npackets_per_second = 5\n").unwrap();
    assert_eq!((read.name.as_str(), read.hot.packets_per_second), ("a", Some(PacketsPerSec(5))));
    assert_eq!(read.copy, Copy::default());
    let mistake = file::read::<AgentFile>("name = \"a\"\n[copy]\ndowntime = \"1\"\n").unwrap_err();
    assert_eq!((mistake.line, mistake.key.as_deref()), (3, Some("copy.downtime")));
}

#[test]
fn the_hash_is_pinned_and_covers_what_hosts_must_share() {
    let of = |text: &str| file::settings(text).unwrap().hash();
    // A change here parts new hosts from old ones: raise `MEANING` on purpose, never by accident.
    expect!["870c754790faba7d"].assert_eq(&format!("{:016x}", of("")));
    for shared in [
        "hot.for = \"3min\"",
        "hot.cpu_used = \"81%\"",
        "hot.cpu_pressure = \"21%\"",
        "hot.memory_used = \"91%\"",
        "hot.nic_used = \"81%\"",
        "hot.drops_per_second = 101",
        "hot.packets_per_second = 1",
        "target.cpu_used_max = \"71%\"",
        "target.memory_used_max = \"86%\"",
        "target.memory_reserve = \"5GiB\"",
        "worth_it.gain_min = \"11%\"",
        "worth_it.traffic_apart = \"0%\"",
        "spread.gain_min = \"1%\"",
    ] {
        assert_ne!(of(shared), of(""), "{shared}");
    }
    for own in [
        "mode.balance = \"off\"",
        "mode.trigger = \"spread\"",
        "spread.threshold = \"1%\"",
        "worth_it.vm_rest = \"1h\"",
        "worth_it.host_rest = \"1h\"",
        "worth_it.measure_after = \"1h\"",
        "limits.moves_per_host = 2",
        "copy.bandwidth = \"1%\"",
    ] {
        assert_eq!(of(own), of(""), "{own}");
    }
}

proptest! {
    #[test]
    fn durations_are_read_as_written(micros in 1_u64..=366 * 86_400_000_000) {
        let duration = Duration::from_micros(micros);
        prop_assert_eq!(parse_duration(&duration_text(duration)).unwrap(), duration);
    }

    #[test]
    fn whole_units_are_read_as_written(number in 1_u64..366, unit in 0_usize..6) {
        let size = [1, 1_000, 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000][unit];
        let duration = Duration::from_micros(number * size);
        let text = format!("{number} {}", ["us", "ms", "s", "min", "h", "d"][unit]);
        prop_assert_eq!(parse_duration(&text).unwrap(), duration);
        prop_assert_eq!(parse_duration(&duration_text(duration)).unwrap(), duration);
    }

    #[test]
    fn memory_is_read_as_written(mib in 0_u64..=1 << 30) {
        prop_assert_eq!(parse_memory(&memory_text(Mib(mib))).unwrap(), Mib(mib));
    }

    #[test]
    fn shares_are_read_as_written(thousandths in 0_u32..=1000) {
        prop_assert_eq!(parse_share(&share_text(Share(thousandths))).unwrap(), Share(thousandths));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,40}|[0-9.]{0,50}[a-zA-Z% ]{0,4}") {
        let _ = (parse_duration(&text), parse_share(&text), parse_memory(&text), parse_cost(&text));
        let _ = file::settings(&text);
        let _ = file::settings(&format!("[hot]\nfor = \"{text}\""));
    }
}
