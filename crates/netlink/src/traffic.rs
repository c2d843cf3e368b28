//! Traffic control (`tc(8)`): everything one interface receives goes out of another.

use rustix::io::Errno;

use crate::{
    Netlink, NetlinkError,
    error::Result,
    message::{CREATE, EXCLUSIVE, attributes, i32_at, u32_at},
};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
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

/// What becomes of what an interface receives before its own kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingress {
    /// It has no ingress queue of this kind.
    Absent,
    /// It has one, and nothing is on it.
    Empty,
    /// It goes out of the interface of this number; of none any more, where that is 0.
    Redirected(i32),
    /// Something else.
    Other,
}

impl Netlink {
    /// Looks at what [`Netlink::redirect`] sets up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ingress(&mut self, of: i32) -> Result<Ingress> {
        let mut ingress = Ingress::Absent;
        let action = format!("looking for an ingress queue of interface {of}");
        self.dump(&action, RTM_GETQDISC, &header(of, 0, 0, 0), |kind, body| {
            // Of all interfaces, on kernels that do not filter.
            if kind == RTM_NEWQDISC && i32_at(body, 4)? == of && u32_at(body, 12)? == INGRESS {
                let name = attribute(body.get(FIXED..)?, TCA_KIND);
                if name == Some(b"ingress\0".as_slice()) {
                    ingress = Ingress::Empty;
                }
            }
            Some(())
        })?;
        if ingress == Ingress::Absent {
            return Ok(ingress);
        }
        let action = format!("looking at the ingress queue of interface {of}");
        let fixed = header(of, 0, INGRESS_HANDLE, 0);
        self.dump(&action, RTM_GETTFILTER, &fixed, |kind, body| {
            if kind == RTM_NEWTFILTER && i32_at(body, 4)? == of {
                let found = redirection(body.get(FIXED..)?);
                ingress = match (ingress, found) {
                    (redirected @ Ingress::Redirected(_), _) => redirected,
                    (_, Some(to)) => Ingress::Redirected(to),
                    // The classifier's tables are told of beside what is in them.
                    (_, None) => Ingress::Other,
                };
            }
            Some(())
        })?;
        Ok(ingress)
    }

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

/// Where the first action of a filter of ours sends what it gets.
fn redirection(filter: &[u8]) -> Option<i32> {
    let options = attribute(filter, TCA_OPTIONS)?;
    let first = attribute(attribute(options, U32_ACTIONS)?, 1)?;
    if attribute(first, ACTION_KIND)? != b"mirred\0" {
        return None;
    }
    let parameters = attribute(attribute(first, ACTION_OPTIONS)?, MIRRED_PARAMETERS)?;
    (i32_at(parameters, 20)? == EGRESS_REDIRECT).then(|| i32_at(parameters, 24))?
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = attributes(bytes).filter(|(kind, _)| *kind == wanted);
    found.next().map(|(_, value)| value)
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
