//! Closed windows that wait to be sent, in bounded memory.

use heapless::Deque;

use crate::Window;

/// Up to `N` closed windows, oldest first. When it is full, two neighbours become one: nothing counted is lost,
/// only resolution.
#[derive(Clone, Debug, Default)]
pub struct Ring<const N: usize, const FEATURES: usize, const COUNTERS: usize> {
    windows: Deque<Window<FEATURES, COUNTERS>, N>,
}

impl<const N: usize, const FEATURES: usize, const COUNTERS: usize> Ring<N, FEATURES, COUNTERS> {
    /// An empty ring.
    pub const fn new() -> Self {
        Ring { windows: Deque::new() }
    }

    /// Number of windows in the ring.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is no window in the ring.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The windows, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Window<FEATURES, COUNTERS>> {
        self.windows.iter()
    }

    /// The oldest window.
    pub fn oldest(&self) -> Option<&Window<FEATURES, COUNTERS>> {
        self.windows.front()
    }

    /// Takes the oldest window out.
    pub fn pop(&mut self) -> Option<Window<FEATURES, COUNTERS>> {
        self.windows.pop_front()
    }

    /// Adds a closed window. In a full ring the two oldest neighbours that can be merged exactly (one model, no
    /// counter at its end) become one; the new window counts as the youngest neighbour. `Ok(true)` says that
    /// windows were merged.
    ///
    /// # Errors
    /// Gives the window back when no two neighbours can be merged: they belong to different models, or hold 2^32
    /// counts. The caller keeps it open and goes on counting in it.
    // The window in the error is as large as the one that was passed in; there is no memory to put it elsewhere.
    #[allow(clippy::result_large_err)]
    pub fn push(&mut self, window: Window<FEATURES, COUNTERS>) -> Result<bool, Window<FEATURES, COUNTERS>> {
        if let Err(mut window) = self.windows.push_back(window) {
            if self.merge_oldest() {
                return self.windows.push_back(window).map(|()| true);
            }
            let Some(youngest) = self.windows.back_mut().filter(|youngest| youngest.fits(&window)) else {
                return Err(window);
            };
            core::mem::swap(youngest, &mut window);
            // Merging is commutative; `fits` has shown that it succeeds.
            return youngest.merge(&window).map(|()| true).map_err(|_| window);
        }
        Ok(false)
    }

    /// Merges the two oldest neighbours that fit. `false` when there are none.
    fn merge_oldest(&mut self) -> bool {
        let pair = self.windows.iter().zip(self.windows.iter().skip(1)).position(|(a, b)| a.fits(b));
        let Some(pair) = pair else { return false };
        // Turn the ring until the pair is in front, merge, and turn it back.
        let len = self.windows.len();
        self.rotate(pair);
        let merged = match (self.windows.pop_front(), self.windows.pop_front()) {
            (Some(mut older), Some(younger)) => {
                older.merge(&younger).is_ok() && self.windows.push_front(older).is_ok()
            }
            _ => false,
        };
        self.rotate(len.saturating_sub(1 + pair));
        merged
    }

    /// Moves the oldest window behind the youngest, `times` times.
    fn rotate(&mut self, times: usize) {
        for _ in 0..times {
            if let Some(window) = self.windows.pop_front() {
                // There is room: one was just taken out.
                let _ = self.windows.push_back(window);
            }
        }
    }
}
