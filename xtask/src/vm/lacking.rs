//! What a machine may lack for virtual machines, told apart from what is broken.
//!
//! Invariant: lacking means that nothing could be tried. Where one kernel was had and
//! another one was not, that is a failure, however much it looks like a lack.

use std::{error::Error, fmt};

use anyhow::{Result, bail};

/// This machine cannot boot other kernels, for this reason.
#[derive(Debug)]
pub(super) struct Lacking(pub(super) String);

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Lacking {}

/// A kernel that is ready to boot.
#[derive(Debug)]
pub(super) enum Had<T> {
    /// From an archive, now.
    Fetched(T),
    /// From an earlier run.
    Kept(T),
}

/// All kernels, or why there are not all of them. An archive that is out of reach for each
/// kernel that was asked of it is a lack of this machine's; for some only, it is not.
pub(super) fn all<T>(kernels: impl IntoIterator<Item = Result<Had<T>>>) -> Result<Vec<T>> {
    let (mut had, mut reached, mut lacking) = (Vec::new(), false, None);
    for kernel in kernels {
        match kernel {
            Ok(Had::Fetched(kernel)) => {
                had.push(kernel);
                reached = true;
            }
            Ok(Had::Kept(kernel)) => had.push(kernel),
            Err(error) if error.is::<Lacking>() => lacking = lacking.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match lacking {
        None => Ok(had),
        Some(error) if reached => bail!("{error:#}, and others can be reached"),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn lacks(kernels: Vec<Result<Had<()>>>) -> Option<bool> {
        all(kernels).err().map(|error| error.is::<Lacking>())
    }

    fn out_of_reach() -> Result<Had<()>> {
        Err(Lacking("out of reach".to_owned()).into())
    }

    #[test]
    fn a_lack_is_one_only_where_nothing_was_reached() {
        let (fetched, kept) = (|| Ok(Had::Fetched(())), || Ok(Had::Kept(())));
        assert_eq!(lacks(vec![fetched(), kept()]), None);
        assert_eq!(lacks(vec![out_of_reach(), out_of_reach()]), Some(true));
        assert_eq!(lacks(vec![kept(), out_of_reach()]), Some(true));
        assert_eq!(lacks(vec![out_of_reach(), fetched()]), Some(false));
        assert_eq!(lacks(vec![fetched(), out_of_reach()]), Some(false));
    }

    #[test]
    fn what_is_broken_is_no_lack() {
        let broken = || Err(anyhow!("not signed"));
        assert_eq!(lacks(vec![out_of_reach(), broken()]), Some(false));
    }
}
