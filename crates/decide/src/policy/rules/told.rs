//! One VM's rules in words, as they were understood from the settings and its tags.

use super::{Excluded, VmRules};
use crate::policy::quantity::duration_text;

impl VmRules {
    /// Each rule that holds of the VM, in the words of the settings file.
    pub fn told(&self) -> Vec<String> {
        let affinity = self.affinity.iter().map(|group| format!("affinity {group}"));
        let apart = self.anti_affinity.iter().map(|group| format!("anti-affinity {group}"));
        let must = self.must.iter().map(|places| format!("pin {places}"));
        let should = self.should.iter().map(|places| format!("prefer {places}"));
        let excluded = self.excluded.iter().map(|excluded| match excluded {
            Excluded::Always => "exclude".to_owned(),
            Excluded::Until(until) => format!("exclude until {until}"),
        });
        let priority = (self.priority != 0).then(|| format!("priority {}", self.priority));
        let downtime = self.downtime.map(|time| format!("downtime {}", duration_text(time)));
        let slowed = self.auto_converge.then(|| "auto-converge".to_owned());
        let disks = self.copy_disks.then(|| "copy-disks".to_owned());
        let rest = self.rest.map(|time| format!("rest {}", duration_text(time)));
        let hours = self.hours.iter().map(|hours| format!("hours {hours}"));
        let balance = self.balance.map(|mode| format!("balance {}", mode.name()));
        let rules = self.rules.map(|mode| format!("rules {}", mode.name()));
        let places = affinity.chain(apart).chain(must).chain(should).chain(excluded);
        places
            .chain(priority)
            .chain(downtime)
            .chain(slowed)
            .chain(disks)
            .chain(rest)
            .chain(hours)
            .chain(balance)
            .chain(rules)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::rules::Rules;
    use crate::units::VmId;

    #[test]
    fn every_kind_of_rule_is_told_as_it_was_understood() {
        let tags = [
            "plb_affinity_app",
            "plb_anti_affinity_web",
            "plb_pin_host1",
            "evenkeel:pin=host2",
            "evenkeel:prefer-label=rack-a",
            "evenkeel:exclude=2026-12-24T18:00Z",
            "evenkeel:priority=5",
            "evenkeel:downtime=50ms",
            "evenkeel:auto-converge=yes",
            "evenkeel:copy-disks=yes",
            "evenkeel:rest=12h",
            "evenkeel:hours=Sun 00:00-24:00 UTC",
            "evenkeel:balance=automatic",
            "evenkeel:rules=off",
        ];
        let told = |tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            Rules::default().of(VmId(1), "web1", &tags).told()
        };
        assert_eq!(
            told(&tags),
            [
                "affinity app",
                "anti-affinity web",
                "pin host1, host2",
                "prefer hosts with label rack-a",
                "exclude until 2026-12-24T18:00Z",
                "priority 5",
                "downtime 50ms",
                "auto-converge",
                "copy-disks",
                "rest 12h",
                "hours Sun 00:00-24:00 UTC",
                "balance automatic",
                "rules off",
            ]
        );
        assert_eq!(told(&["plb_ignore_this"]), ["exclude"]);
        assert_eq!(told(&["of no meaning"]), [""; 0]);
    }
}
