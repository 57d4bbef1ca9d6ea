//! Servers of others that tests run against: each on a free port of the loopback interface, in a temporary folder that
//! goes when the value is dropped, and independent of what else runs on the machine.

mod account;
mod clock;
mod mosquitto;
mod port;
mod postgres;
mod process;
mod s3;

pub use clock::FakeClock;
pub use mosquitto::Mosquitto;
pub use port::free_port;
pub use postgres::Postgres;
pub use process::wait_until;
pub use s3::S3;
