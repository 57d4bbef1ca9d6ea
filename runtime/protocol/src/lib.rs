//! The messages and topics between devices and the control plane.
#![no_std]
