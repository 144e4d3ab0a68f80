//! Something for each VM, by its number: of thousands of VMs, looked up at each reading of each.

use std::ops::Index;

use decide::units::VmId;

/// In the order of ids, which must be small numbers, as [`super::scene::vm_id`] gives them.
#[derive(Clone, Debug)]
pub struct ByVm<T>(Vec<Option<T>>);

impl<T> Default for ByVm<T> {
    fn default() -> ByVm<T> {
        ByVm(Vec::new())
    }
}

impl<T> ByVm<T> {
    /// Puts it in, in place of what was there.
    pub fn insert(&mut self, vm: VmId, one: T) {
        let at = place(vm).expect("ids in the simulator are small");
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(one);
    }

    /// That VM's.
    pub fn get(&self, vm: VmId) -> Option<&T> {
        self.0.get(place(vm)?)?.as_ref()
    }

    /// That VM's.
    pub fn get_mut(&mut self, vm: &VmId) -> Option<&mut T> {
        self.0.get_mut(place(*vm)?)?.as_mut()
    }

    /// All, with their VMs.
    pub fn iter(&self) -> impl Iterator<Item = (VmId, &T)> {
        (0..).zip(&self.0).filter_map(|(n, one)| Some((VmId(n), one.as_ref()?)))
    }

    /// The VMs.
    pub fn keys(&self) -> impl Iterator<Item = VmId> {
        self.iter().map(|(vm, _)| vm)
    }

    /// All, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Index<&VmId> for ByVm<T> {
    type Output = T;

    fn index(&self, vm: &VmId) -> &T {
        self.get(*vm).expect("a VM of this world")
    }
}

fn place(vm: VmId) -> Option<usize> {
    // What is larger is no VM of the simulator, and would take as much memory.
    u32::try_from(vm.0).ok().and_then(|n| usize::try_from(n).ok())
}
