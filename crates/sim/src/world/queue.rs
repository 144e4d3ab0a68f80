//! What is to come, in the order of its instants; at one instant in the order in which it was put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use decide::units::Time;

/// Holds what is to come.
#[derive(Debug)]
pub(super) struct Queue<T> {
    order: BinaryHeap<Reverse<(Time, u64, u32)>>,
    /// The heap moves its entries about; what they stand for stays where it is.
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    put: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { order: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), put: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn put(&mut self, at: Time, coming: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("so many things do not come at once")
        });
        self.slots[slot as usize] = Some(coming);
        self.put += 1;
        self.order.push(Reverse((at, self.put, slot)));
    }

    /// When the next comes.
    pub(super) fn next(&self) -> Option<Time> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn take(&mut self) -> Option<T> {
        let Reverse((_, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        self.slots[slot as usize].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_time_then_first_put_in() {
        let mut queue = Queue::default();
        for (at, what) in [(5, "c"), (2, "a"), (5, "d"), (2, "b")] {
            queue.put(Time(at), what);
        }
        assert_eq!(queue.next(), Some(Time(2)));
        let taken: Vec<&str> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, ["a", "b", "c", "d"]);
    }
}
