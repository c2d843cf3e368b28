//! Tattach and Twalk.

use std::sync::Arc;

use rustix::io::{Errno, Result};

use crate::{
    fid::{Fid, State},
    resolve,
    session::Session,
    wire::{MAX_WALK, Qid, Qids, Text},
};

/// Attaches the export `aname` for the user `uid`. Nothing is asked of the user: the guest's kernel checks its own
/// users' permissions, and the export is what the guest as a whole may have.
pub(super) fn attach(session: &Arc<Session>, number: u32, aname: Text<'_>, uid: u32) -> Result<Qid> {
    let exported = session.exports().get(aname.as_os_str()).ok_or(Errno::NOENT)?;
    let root = Arc::clone(exported.root());
    let qid = exported.qids().qid(&root.stat()?)?;
    exported.used_by(session)?;
    session.fids().insert(
        number,
        Fid::new(exported, root, uid, State::Closed, session.locks()),
    )?;
    Ok(qid)
}

/// Walks along names. If not even the first is found it fails; if a later one is not, the qids up to there are
/// returned and no fid is made (walk(5)).
pub(super) fn walk(session: &Session, number: u32, new: u32, names: &[Text<'_>]) -> Result<Qids> {
    if names.len() > MAX_WALK {
        return Err(Errno::INVAL);
    }
    let fid = session.fids().get(number)?;
    if matches!(&*fid.state(), State::XattrRead(_) | State::XattrWrite(_)) {
        return Err(Errno::BADF);
    }
    let export = fid.exported();
    let mut qids = Qids::default();
    let mut node = Arc::clone(fid.node());
    for (index, name) in names.iter().enumerate() {
        let (next, stat) = match resolve::step(export, &node, *name) {
            Ok(next) => next,
            Err(errno) if index == 0 => return Err(errno),
            Err(_) => return Ok(qids),
        };
        qids.push(export.qids().qid(&stat)?);
        node = next;
    }
    let walked = fid.derive(node, State::Closed);
    if new == number {
        // An open fid cannot go elsewhere: its open file would be lost behind the client's back.
        if !matches!(&*fid.state(), State::Closed) {
            return Err(Errno::BADF);
        }
        session.fids().replace(number, &fid, walked)?;
    } else {
        session.fids().insert(new, walked)?;
    }
    Ok(qids)
}
