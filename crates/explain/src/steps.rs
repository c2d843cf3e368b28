//! The steps of an allocation in which everything succeeds, as the ledger itself asks for them.

use cofferdam_ledger::{Lease, Ledger, Next, Request};
use cofferdam_reserve::Reserved;

use crate::ExplainError;

/// Every step of the way in, with the lease it was asked for.
pub(crate) fn all(ledger: &mut Ledger, reserved: &Reserved) -> Result<Vec<(Lease, Request)>, ExplainError> {
    let mut steps = Vec::new();
    for lease in reserved.all() {
        loop {
            match ledger.next(lease) {
                Next::Perform(step) => {
                    ledger
                        .outcome(&step.token, Ok(()))
                        .map_err(|_| ExplainError::Stuck)?;
                    steps.push((lease, step.request));
                }
                Next::Ready => break,
                // Nothing fails here, nobody else performs a step, and nothing is released.
                Next::Wait | Next::Failed(_) | Next::Gone => return Err(ExplainError::Stuck),
            }
        }
    }
    Ok(steps)
}
