//! The transports: decode, call one function of the service, encode.
