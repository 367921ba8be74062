//! Second moments of what the linear layers at a site see.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{Storage, Tensor};
use compress_model_feedback::{CrossGram, Gram, difference};

use super::activations::Activations;
use super::stream::Stream;
use crate::error::Result;
use crate::model::{HeldBlock, Model, Site};

/// Sums over the tokens of a text at one site.
pub(crate) struct Moments {
    /// x·xᵀ of the inputs.
    pub(crate) gram: Gram,
    /// (x' - x)·xᵀ, where x' is what the original model has for the same token.
    pub(crate) drift: Option<CrossGram>,
    /// (r' - r)·xᵀ, where r and r' are the residual streams that the outputs are added to.
    pub(crate) residual_drift: Option<CrossGram>,
}

/// Takes all of `student` to `site`, and `teacher` with it, and adds up what they see.
///
/// # Errors
/// As running the block; I/O.
pub(crate) fn collect_site(
    site: Site,
    student: (&Stream<'_>, &HeldBlock),
    teacher: Option<(&Stream<'_>, &HeldBlock)>,
) -> Result<Moments> {
    let writes = matches!(site, Site::Output | Site::Down) && student.1.adds_outputs();
    let mut moments: Option<Moments> = None;
    for batch in 0..student.0.batches() {
        let passage = student.0.reach(student.1, site, batch)?;
        let hidden = student.0.model().architecture().hidden_size;
        let width = passage.input.len() * hidden / passage.residual.len();
        let moments = moments.get_or_insert_with(|| Moments {
            gram: Gram::new(width),
            drift: teacher.map(|_| CrossGram::new(width, width)),
            residual_drift: teacher.filter(|_| writes).map(|_| CrossGram::new(hidden, width)),
        });
        moments.gram.add(&passage.input);
        if let Some((stream, held)) = teacher {
            let theirs = stream.reach(held, site, batch)?;
            if let Some(drift) = &mut moments.drift {
                drift.add(&difference(&theirs.input, &passage.input), &passage.input);
            }
            if let Some(drift) = &mut moments.residual_drift {
                drift.add(&difference(&theirs.residual, &passage.residual), &passage.input);
            }
        }
    }
    Ok(moments.expect("invariant: a text has a window"))
}

/// Takes all of `student` to `site`, and `teacher` with it.
///
/// # Errors
/// As running the block; I/O.
pub(crate) fn pass_site(
    site: Site,
    student: (&Stream<'_>, &HeldBlock),
    teacher: Option<(&Stream<'_>, &HeldBlock)>,
) -> Result<()> {
    for (stream, held) in std::iter::once(student).chain(teacher) {
        for batch in 0..stream.batches() {
            stream.reach(held, site, batch)?;
        }
    }
    Ok(())
}

/// Sums of what the linear layers of experts see; an expert that no token came to has none.
///
/// # Errors
/// As running the block; I/O.
pub(crate) fn collect_experts(
    stream: &Stream<'_>,
    held: &HeldBlock,
) -> Result<BTreeMap<Site, Gram>> {
    let grams = RefCell::new(BTreeMap::new());
    let observer = |site: Site, x: &Tensor| {
        let mut grams = grams.borrow_mut();
        let gram = grams.entry(site).or_insert_with(|| Gram::new(x.dims()[1]));
        with_values(x, |values| gram.add(values))
    };
    for batch in 0..stream.batches() {
        stream.watch_experts(held, batch, &observer)?;
    }
    Ok(grams.into_inner())
}

/// Gives each of `sites` that saw fewer tokens than it has inputs the sums of all experts; the
/// second part names those sites.
pub(crate) fn with_fallback(
    mut grams: BTreeMap<Site, Gram>,
    sites: &[Site],
) -> (BTreeMap<Site, Gram>, Vec<Site>) {
    let mut rare = Vec::new();
    for down in [false, true] {
        let same = |site: &Site| site.is_expert() && matches!(site, Site::ExpertDown(_)) == down;
        let mut all: Option<Gram> = None;
        for (_, gram) in grams.iter().filter(|(site, _)| same(site)) {
            all.get_or_insert_with(|| Gram::new(gram.width())).absorb(gram);
        }
        let Some(all) = all else { continue };
        for site in sites.iter().filter(|site| same(site)) {
            if grams.get(site).is_none_or(|gram| gram.tokens() < gram.width() as u64) {
                grams.insert(*site, all.clone());
                rare.push(*site);
            }
        }
    }
    (grams, rare)
}

/// Sums of what the head sees of `hidden`, the residual stream at the end of the model.
///
/// # Errors
/// As running the model; I/O.
pub(crate) fn collect_head(model: &Model, hidden: &Activations) -> Result<Gram> {
    let mut gram = Gram::new(model.architecture().hidden_size);
    for batch in 0..hidden.batches() {
        gram.add(&model.head_input(&hidden.read(batch)?)?);
    }
    Ok(gram)
}

/// Lends the values of `x`, row-major.
pub(super) fn with_values(x: &Tensor, f: impl FnOnce(&[f32])) -> candle_core::Result<()> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("not on the CPU") };
    let start = layout.start_offset();
    f(&storage.as_slice::<f32>()?[start..start + layout.shape().elem_count()]);
    Ok(())
}
