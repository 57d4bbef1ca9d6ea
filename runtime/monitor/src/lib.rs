//! Fixed-size, exactly mergeable statistics of what a model does on a device.
#![no_std]
