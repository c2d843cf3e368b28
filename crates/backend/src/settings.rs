//! The ledger's guest steps as the guest protocol says them.

use cofferdam_ledger::request::GuestRequest;
use cofferdam_protocol::settings::ModificationRequest;

/// The `ModifySettings` request that asks the guest for `request` (GCS bridge protocol §7).
pub fn guest_settings(request: &GuestRequest) -> ModificationRequest {
    request.into()
}
