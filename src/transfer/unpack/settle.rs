//! Keys that an archive's entry shares with another file, or with another archive's entry: found before the first object
//! is made, so that all who claim such a key fail, whichever would have come first.
//!
//! Only files whose templates let that happen are looked at: the first bytes of each, and the headers of those that turn
//! out to be archives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;

use super::claims::Claims;
use super::judge::collision;
use super::range_reader;
use crate::failure::Failure;
use crate::plan::PlannedFile;
use crate::template::ObjectKey;
use crate::transfer::{FILES_AT_ONCE, Transfer};

/// What was found out before the first object.
pub struct Settled {
    /// Keys at which nothing may be stored.
    pub contested: Claims,
    /// Files that cannot be delivered, by their place among the planned.
    pub failed: HashMap<usize, Failure>,
}

/// One file's claims.
struct Looked {
    claims: Claims,
    /// Whether the file itself becomes an object.
    is_stored: bool,
}

impl Transfer {
    /// Settles who may have which key. Nothing is stored at a key of `contested` either. A file that cannot be looked at
    /// fails: what it holds might meet anything.
    pub(in crate::transfer) async fn settle(
        self: &Arc<Self>,
        files: &[PlannedFile],
        contested: HashSet<ObjectKey>,
    ) -> Settled {
        let mut claims = Claims::new(&self.hasher);
        contested.iter().for_each(|key| claims.contest(key));
        let mut failed = HashMap::new();
        let mut stored = Vec::new();
        let possible = files.iter().enumerate().filter(|(_, file)| file.may_share_key);
        let mut looks = futures::stream::iter(possible)
            .map(|(index, file)| async move { (index, self.look_at_keys(file).await) })
            .buffer_unordered(FILES_AT_ONCE);
        while let Some((index, looked)) = looks.next().await {
            match looked {
                Ok(looked) => {
                    claims.take_in(looked.claims);
                    if looked.is_stored {
                        stored.push(index);
                    }
                }
                Err(failure) => {
                    // Its own key is known, and is not for another to take.
                    claims.claim(&files[index].key);
                    failed.insert(index, failure);
                }
            }
        }
        drop(looks);
        let contested = claims.only_contested();
        let refused = stored.into_iter().filter(|index| contested.is_contested(&files[*index].key));
        failed.extend(refused.map(|index| (index, collision(&files[index].key))));
        Settled { contested, failed }
    }

    async fn look_at_keys(self: &Arc<Self>, file: &PlannedFile) -> Result<Looked, Failure> {
        let is_archive = self.is_archive(file).await?;
        let mut claims = if is_archive {
            let _place = self.place_to_unpack().await?;
            let _window = self.hold(range_reader::WINDOW.min(file.size)).await?;
            let none = Arc::new(Claims::new(&self.hasher));
            self.read_headers(&Arc::new(file.clone()), none).await?.into_claims()
        } else {
            Claims::new(&self.hasher)
        };
        let is_stored = !is_archive || self.settings.unpack.keep_archive;
        if is_stored {
            claims.claim(&file.key);
        }
        Ok(Looked { claims, is_stored })
    }
}
