//! What one step of a state machine asks for.

use heapless::Vec;

/// Actions, to be performed in this order; at most `N`.
// Not `heapless::Vec` itself: its owning iterator contains code that can panic, which firmware refuses.
#[derive(Clone, Debug)]
pub struct Actions<A, const N: usize> {
    list: Vec<A, N>,
    taken: usize,
}

impl<A, const N: usize> Default for Actions<A, N> {
    fn default() -> Self {
        Self { list: Vec::new(), taken: 0 }
    }
}

impl<A: Copy, const N: usize> Iterator for Actions<A, N> {
    type Item = A;

    fn next(&mut self) -> Option<A> {
        let action = self.list.get(self.taken).copied()?;
        self.taken += 1;
        Some(action)
    }
}

impl<A, const N: usize> Actions<A, N> {
    /// Tests over random events show that no step asks for more than there is room for.
    pub(crate) fn push(&mut self, action: A) {
        let pushed = self.list.push(action);
        debug_assert!(pushed.is_ok(), "no room for an action");
    }
}
