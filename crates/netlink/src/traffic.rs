//! Traffic control (`tc(8)`): everything one interface receives goes out of another.

use rustix::io::Errno;

use crate::{
    Netlink, NetlinkError,
    error::Result,
    message::{CREATE, EXCLUSIVE},
};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
/// Bytes of `struct tcmsg`.
const FIXED: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// `TC_H_INGRESS`, and the handle that such a queue has.
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// `ETH_P_ALL` in network order, in the lower half; the filter's priority in the upper.
const EVERY_PROTOCOL: u32 = 0x0003_u16.to_be() as u32;
const FIRST: u32 = 1 << 16;

/// Of the classifier `u32`: `TCA_U32_SEL`, `TCA_U32_ACT`, `TC_U32_TERMINAL`.
const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
const TERMINAL: u8 = 1;
/// Of an action: `TCA_ACT_KIND`, `TCA_ACT_OPTIONS`.
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
/// Of the action `mirred`: `TCA_MIRRED_PARMS`, `TC_ACT_STOLEN`, `TCA_EGRESS_REDIR`.
const MIRRED_PARAMETERS: u16 = 2;
const STOLEN: i32 = 4;
const EGRESS_REDIRECT: i32 = 1;

impl Netlink {
    /// Sends everything that interface `from` receives out of interface `to`.
    ///
    /// The classifier is `u32` with a key that matches everything, which more kernels have than `matchall`.
    ///
    /// # Errors
    /// The kernel's: without `sch_ingress`, `cls_u32` or `act_mirred` it says that there is no such file.
    pub fn redirect(&mut self, from: i32, to: i32) -> Result<()> {
        let action = format!("giving interface {from} an ingress queue");
        let fixed = header(from, INGRESS_HANDLE, INGRESS, 0);
        self.perform(&action, RTM_NEWQDISC, CREATE | EXCLUSIVE, &fixed, |message| {
            message.text(TCA_KIND, "ingress")
        })?;
        let action = format!("redirecting what interface {from} receives to interface {to}");
        let fixed = header(from, 0, INGRESS_HANDLE, FIRST | EVERY_PROTOCOL);
        let redirected = self.perform(&action, RTM_NEWTFILTER, CREATE | EXCLUSIVE, &fixed, |message| {
            message.text(TCA_KIND, "u32").nested(TCA_OPTIONS, |options| {
                options
                    .nested(U32_ACTIONS, |actions| {
                        actions.nested(1, |first| {
                            first
                                .text(ACTION_KIND, "mirred")
                                .nested(ACTION_OPTIONS, |mirred| {
                                    mirred.attribute(MIRRED_PARAMETERS, &mirred_parameters(to))
                                })
                        })
                    })
                    .attribute(U32_SELECTOR, &match_everything())
            })
        });
        if redirected.is_err() {
            // The first failure says more than that of undoing it.
            let _ = self.stop_redirecting(from);
        }
        redirected
    }

    /// Takes the ingress queue of an interface away, with everything on it. None is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop_redirecting(&mut self, from: i32) -> Result<()> {
        let action = format!("taking the ingress queue of interface {from} away");
        let fixed = header(from, INGRESS_HANDLE, INGRESS, 0);
        match self.perform(&action, RTM_DELQDISC, 0, &fixed, |message| message) {
            // The kernel's two ways to say that there is no such queue: of this handle, or of this place.
            Err(NetlinkError::Io { source, .. })
                if [Errno::NOENT, Errno::INVAL]
                    .contains(&Errno::from_io_error(&source).unwrap_or(Errno::IO)) =>
            {
                Ok(())
            }
            done => done,
        }
    }
}

/// `struct tcmsg`.
fn header(index: i32, handle: u32, parent: u32, info: u32) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&handle.to_ne_bytes());
    fixed[12..16].copy_from_slice(&parent.to_ne_bytes());
    fixed[16..20].copy_from_slice(&info.to_ne_bytes());
    fixed
}

/// `struct tc_u32_sel` with one `struct tc_u32_key` whose mask leaves nothing to compare.
fn match_everything() -> [u8; 32] {
    let mut selector = [0; 32];
    selector[0] = TERMINAL;
    // How many keys.
    selector[2] = 1;
    selector
}

/// `struct tc_mirred`.
fn mirred_parameters(to: i32) -> [u8; 28] {
    let mut parameters = [0; 28];
    parameters[8..12].copy_from_slice(&STOLEN.to_ne_bytes());
    parameters[20..24].copy_from_slice(&EGRESS_REDIRECT.to_ne_bytes());
    parameters[24..28].copy_from_slice(&to.to_ne_bytes());
    parameters
}
