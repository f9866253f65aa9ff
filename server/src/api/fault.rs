//! Bytes that are not a message, as the fault that tells the sender so.

use synchrotron_core::wire::{Fault, FaultCode, InflateError, WireError};

/// The fault for a message that cannot be read.
pub(crate) fn unreadable(error: &WireError) -> Fault {
    let code = match error {
        WireError::TooLarge { .. } | WireError::Compressed(InflateError::TooLarge { .. }) => FaultCode::TooLarge,
        WireError::Version { .. } => FaultCode::UnsupportedVersion,
        WireError::Malformed(_)
        | WireError::Compressed(InflateError::Damaged(_) | InflateError::Trailing { .. })
        | WireError::Json { .. }
        | WireError::Shape(_) => FaultCode::Malformed,
    };
    Fault::new(code, error.to_string())
}
