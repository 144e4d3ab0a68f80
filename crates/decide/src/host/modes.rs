//! Who moves a VM: nobody, a person, or this host by itself, as `[mode]` and the VM's own rules say.
//!
//! **Invariant:** `off` in `[mode]` is off for every VM. An affinity group that goes as one goes as the most cautious of its VMs.
//! **Invariant:** no VM is given to another host in return unless it would be moved by itself, or a person has applied the move.

use super::Host;
use crate::policy::rules::VmRules;
use crate::policy::settings::Balance;
use crate::units::VmId;

/// A mode, and where it is said.
struct Mode {
    mode: Balance,
    /// The VM that has it of its own; absent: `[mode]` says so.
    own: Option<VmId>,
}

impl Host {
    /// Who moves a VM here, and its group with it, so that load is balanced.
    pub(super) fn balance_of(&self, vm: VmId) -> Balance {
        self.to_balance(vm).mode
    }

    /// Who moves a VM here where a rule is broken.
    pub(super) fn enforcing_of(&self, vm: VmId) -> Balance {
        self.to_enforce(vm).mode
    }

    /// Whether this host moves a VM by itself, and its group with it, so that load is balanced.
    ///
    /// # Errors
    /// The mode that says it does not.
    pub(super) fn balances(&self, vm: VmId) -> Result<(), String> {
        self.by_mode("balance", vm, &self.to_balance(vm))
    }

    /// Whether this host moves a VM by itself where a rule is broken.
    ///
    /// # Errors
    /// The mode that says it does not.
    pub(super) fn enforces(&self, vm: VmId) -> Result<(), String> {
        self.by_mode("rules", vm, &self.to_enforce(vm))
    }

    /// Whether balancing may have a VM leave as far as its own mode goes.
    pub(super) fn is_balanced(&self, vm: VmId) -> Result<(), String> {
        if self.vms[&vm].rules.balance == Some(Balance::Off) {
            return Err(format!("balance is \"off\" for {}", self.vm_name(vm)));
        }
        Ok(())
    }

    /// Whether this host would give a VM to another in return; `applied`: a person wants the move for which it would.
    pub(super) fn gives_back(&self, vm: VmId, applied: bool) -> bool {
        let asked = match self.balance_of(vm) {
            Balance::Off => false,
            Balance::Recommend => applied,
            Balance::Automatic => true,
        };
        asked && self.switched_on().is_ok()
    }

    /// Whether any VM here may go by itself so that load is balanced.
    pub(super) fn some_go_by_themselves(&self) -> bool {
        self.vms.keys().any(|vm| self.balance_of(*vm) == Balance::Automatic)
    }

    /// What to change so that this host balances a VM by itself.
    pub(super) fn to_have_balanced(&self, vm: VmId) -> String {
        match self.to_balance(vm).own {
            None => "set mode.balance to \"automatic\" here".to_owned(),
            Some(own) => {
                let name = self.vm_name(own);
                format!("`evenkeel vm set {name} balance=automatic`, or its [[rules.vm]]")
            }
        }
    }

    fn to_balance(&self, vm: VmId) -> Mode {
        let mode = self.settings.mode.balance;
        // What is asked of every VM at every look.
        if self.vms.get(&vm).is_none_or(|here| here.rules.affinity.is_empty()) {
            return self.own_or(mode, vm, |rules| rules.balance);
        }
        let group = self.group_of(vm).into_iter();
        let modes = group.map(|vm| self.own_or(mode, vm, |rules| rules.balance));
        modes.min_by_key(|it| it.mode).unwrap_or(Mode { mode, own: None })
    }

    fn to_enforce(&self, vm: VmId) -> Mode {
        self.own_or(self.settings.mode.rules, vm, |rules| rules.rules)
    }

    fn own_or(&self, mode: Balance, vm: VmId, own: fn(&VmRules) -> Option<Balance>) -> Mode {
        let own = self.vms.get(&vm).and_then(|here| own(&here.rules));
        match own.filter(|_| mode != Balance::Off) {
            Some(mode) => Mode { mode, own: Some(vm) },
            None => Mode { mode, own: None },
        }
    }

    fn by_mode(&self, key: &str, vm: VmId, it: &Mode) -> Result<(), String> {
        let whose = match it.own {
            None => String::new(),
            Some(own) if own == vm => format!(" for {}", self.vm_name(vm)),
            Some(own) => format!(" for {}, which goes with it", self.vm_name(own)),
        };
        match it.mode {
            Balance::Automatic => Ok(()),
            mode @ (Balance::Off | Balance::Recommend) => {
                Err(format!("{key} is \"{}\"{whose}", mode.name()))
            }
        }
    }
}
