//! The transports: decode, call one function of the service, encode.

mod fault;
pub mod http;
pub mod nats;
