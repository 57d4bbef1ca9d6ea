//! Memory that the caller owns.

/// `N` bytes aligned for any tensor: the memory of one session.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Arena<const N: usize>([u8; N]);

impl<const N: usize> Arena<N> {
    /// A zeroed arena; usable in a `static`.
    pub const fn new() -> Self {
        Arena([0; N])
    }

    /// The bytes, for [`crate::Session::new`].
    pub const fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// An artifact's bytes at an aligned address, as `include_bytes!` alone does not guarantee.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(
    /// The bytes.
    pub T,
);
