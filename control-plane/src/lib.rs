//! The control plane: one binary that knows every device.

pub mod bus;
