//! A directory, name by name as the server sends them.

use std::collections::VecDeque;

use super::outcome::Failure;
use super::read::stat;
use super::session::Session;
use crate::remote::listing::Listing;
use crate::remote::protocol::{Names, Reply, Request, status};
use crate::remote::{DirEntry, Each, Error, FileKind, Kind, RemotePath};

/// Requests for names under way: the next is made up by the server while the last is on its way.
const UNDER_WAY: usize = 2;

/// Hands every entry of `dir` to `each`, in the server's order. The close is not waited for.
pub async fn list(session: &Session, dir: &RemotePath, each: &mut Each<'_>) -> Result<(), Error> {
    let handle = match session.open(Request::OpenDir { path: dir.as_asked()? }).await {
        Ok(handle) => handle,
        Err(failure) => return Err(why_not_open(session, dir, failure).await),
    };
    let mut listing = Listing::new(dir);
    let mut under_way = VecDeque::new();
    loop {
        while under_way.len() < UNDER_WAY {
            under_way.push_back(handle.read_names(session));
        }
        let Some(reply) = under_way.pop_front() else { break };
        match reply.await {
            // OpenSSH's client, too, takes no names for the end: else a server could keep it here for ever.
            Ok(Reply::Names(names)) if names.count() == 0 => break,
            Ok(Reply::Names(names)) => take(session, names, each, &mut listing)?,
            Err(Failure::Refused(refusal)) if refusal.code == status::EOF => break,
            Ok(_) => return Err(session.out_of_step()),
            Err(failure) => return Err(failure.into_error(format_args!("list {dir}"))),
        }
    }
    listing.finish();
    Ok(())
}

/// OpenSSH calls a directory that is a file missing, as it does one that is not there: asks which.
async fn why_not_open(session: &Session, dir: &RemotePath, failure: Failure) -> Error {
    let error = failure.into_error(format_args!("list {dir}"));
    if error.kind == Kind::NotFound
        && let Ok(attributes) = stat(session, dir).await
        && !matches!(attributes.kind, FileKind::Directory | FileKind::Unknown)
    {
        return Error::new(Kind::Failed, format!("cannot list {dir}: it is not a directory"));
    }
    error
}

fn take(session: &Session, names: Names, each: &mut Each<'_>, listing: &mut Listing<'_>) -> Result<(), Error> {
    let mut taken = Ok(());
    let whole = names.each(|name, attributes| {
        if taken.is_ok() {
            taken = listing.admits(name).and_then(|is_name| match is_name {
                true => each(DirEntry { name: name.to_vec(), attributes }),
                false => Ok(()),
            });
        }
    });
    whole.map_err(|malformed| {
        session.end(format!("the server sent {malformed}"));
        session.lost_error()
    })?;
    taken
}
