//! One run: memory laid out, launches planned and made, what they left.

use super::room::{free_memory, room_for};
use super::{Buffers, Planned, Seen, Trial, TrialError};
use crate::data::image::{Element, Image, Poisons, Role, Scratch};
use crate::data::inputs::Inputs;
use crate::device::{Arg, CompileError, Fault, Launch, Module, RunError, Source};
use crate::kernel::{ArgSpec, Env, Manifest, PlanError, ScratchSize, ScratchType};
use crate::problem::{Axis, Case, DType, Placement, Placements, Pointer, clip};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Trial {
    /// Lays a case out, compiles what it needs and evaluates its launches.
    pub(super) fn plan(&mut self, case: &Case) -> Result<Planned, TrialError> {
        let places = case.placements()?;
        let env = Env::new(case, &places);
        let sizes = self.manifest.scratch_sizes(&env)?;
        self.scratch_fits_in_memory(case, &sizes)?;
        let scratch: Vec<_> = sizes
            .into_iter()
            .map(|s| Scratch {
                name: s.name.clone(),
                element: element(s.dtype),
                elements: s.elements,
                zeroed: s.zeroed,
            })
            .collect();
        let image = Image::new(case, &places, &scratch)
            .ok_or(TrialError::TooLarge { need: u128::MAX >> 20, limit: free_memory() >> 20 })?;
        if !self.device.waves().contains(&case.wave) {
            let why = format!(
                "the case has waves of {}, and {} has waves of {}; write wave={} in it",
                case.wave,
                self.device.describe(),
                self.device.waves()[0],
                self.device.waves()[0]
            );
            let kernel = self.manifest.name.clone();
            return Err(TrialError::Run { kernel, source: RunError::Refused(why) });
        }
        let module = self.module(self.manifest.source(&env)?)?;
        let manifest = Arc::clone(&self.manifest);
        let launches = manifest
            .launches(&env, &module, &|arg| address(&manifest, arg, case, &places, &image))?;
        Ok(Planned { image, launches })
    }

    /// Refuses scratch buffers before they would exhaust the machine. As every buffer they are there
    /// twice: before a run and after it.
    fn scratch_fits_in_memory(&self, case: &Case, sizes: &[ScratchSize]) -> Result<(), TrialError> {
        let mib = |size: &ScratchSize| (2 * size.bytes() as u128) >> 20;
        let Some(largest) = sizes.iter().max_by_key(|size| mib(size)) else { return Ok(()) };
        let need = sizes.iter().map(mib).sum();
        match room_for(need) {
            Ok(()) => Ok(()),
            Err(limit) => Err(TrialError::Scratch {
                kernel: self.manifest.name.clone(),
                name: clip(&largest.name),
                need,
                limit,
                case: case.to_string(),
            }),
        }
    }

    /// One run on freshly written memory; the fault that ended it, if one did.
    pub(super) fn run(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        image: &Image,
        launches: &[Launch],
        poisons: Poisons,
        order_seed: u64,
    ) -> Result<Option<Fault>, TrialError> {
        self.lay_out(case, inputs, image, poisons)?;
        self.execute(case, launches, order_seed)
    }

    /// Writes the memory of a run, and what the kernel may do with it.
    pub(super) fn lay_out(
        &mut self,
        case: &Case,
        inputs: &Inputs,
        image: &Image,
        poisons: Poisons,
    ) -> Result<(), TrialError> {
        self.before.resize(image.size(), 0);
        image.write(case, inputs, poisons, &mut self.before);
        let kernel = &self.manifest.name;
        let refused = |source| TrialError::Run { kernel: kernel.clone(), source };
        self.device.arena(image.size()).map_err(refused)?.copy_from_slice(&self.before);
        self.seen = Seen::Alone;
        if let Some(map) = self.device.access_map() {
            image.allow(case, inputs, map);
        }
        Ok(())
    }

    /// Runs the launches on the memory laid out.
    pub(super) fn execute(
        &mut self,
        case: &Case,
        launches: &[Launch],
        order_seed: u64,
    ) -> Result<Option<Fault>, TrialError> {
        let limits = self.time_limit.of(case, launches, self.device.slowdown());
        self.device.watch(limits.idle);
        let result = self.device.run(launches, order_seed, limits.whole);
        self.fault_of(result)
    }

    /// The fault that ended a run, if one did.
    pub(super) fn fault_of(
        &self,
        result: Result<(), RunError>,
    ) -> Result<Option<Fault>, TrialError> {
        match result {
            Ok(()) => Ok(None),
            Err(RunError::Fault(fault)) => Ok(Some(fault)),
            Err(source) => {
                let kernel = self.manifest.name.clone();
                Err(TrialError::Run { kernel, source })
            }
        }
    }

    /// Memory as the last run left it.
    pub(super) fn after(&mut self, image: &Image) -> Result<&[u8], TrialError> {
        if let Seen::Beside(at) = self.seen {
            let left = self.device.side_by_side().map_or(&[][..], |device| device.left());
            return Ok(&left[at..at + image.size()]);
        }
        let kernel = &self.manifest.name;
        match self.device.arena(image.size()) {
            Ok(memory) => Ok(memory),
            Err(source) => Err(TrialError::Run { kernel: kernel.clone(), source }),
        }
    }

    /// The buffers of the last run; without outputs where a fault ended it.
    pub(super) fn buffers(&mut self, image: &Image, ended: bool) -> Result<Buffers, TrialError> {
        let cut = |from: &[u8], roles: &[Role]| {
            let wanted = image.buffers().iter().filter(|b| roles.contains(&b.role));
            wanted.map(|b| (b.name.clone(), from[b.range.clone()].to_vec())).collect()
        };
        let inputs = [Role::Input, Role::Output];
        let before = match (self.seen, self.device.side_by_side()) {
            (Seen::Beside(at), Some(device)) => {
                let own = at..at + image.size();
                device.exchange(own.clone());
                cut(&device.given()[own], &inputs)
            }
            _ => cut(&self.before, &inputs),
        };
        let manifest = Arc::clone(&self.manifest);
        let mut after: BTreeMap<String, Vec<u8>> =
            if ended { cut(self.after(image)?, &[Role::Output]) } else { BTreeMap::new() };
        after.retain(|name, _| name.parse().is_ok_and(|pointer| manifest.takes(pointer)));
        Ok(Buffers { before, after })
    }

    /// Compiles a source, once.
    fn module(&mut self, source: Source) -> Result<Module, CompileError> {
        if let Some(module) = self.modules.get(&source) {
            return Ok(module.clone());
        }
        let module = self.device.compile(&source)?;
        self.modules.insert(source, module.clone());
        Ok(module)
    }

    /// Compiles what a case needs, so that a sweep can prepare all instances first.
    ///
    /// # Errors
    /// [`TrialError::Compile`] or [`TrialError::Plan`].
    pub fn prepare(&mut self, case: &Case) -> Result<(), TrialError> {
        let source = self.manifest.source(&Env::new(case, &case.placements()?))?;
        self.module(source)?;
        Ok(())
    }
}

/// What a scratch buffer holds.
fn element(scratch: ScratchType) -> Element {
    match scratch {
        ScratchType::F64 => Element::Float(DType::F64),
        ScratchType::F32 => Element::Float(DType::F32),
        ScratchType::F16 => Element::Float(DType::F16),
        ScratchType::BF16 => Element::Float(DType::BF16),
        integer => Element::Int(integer.size()),
    }
}

/// Where a pointer argument points: the first element of its tensor. With a layer axis that is the
/// attended layer's, unless the kernel takes the layer's stride and finds it itself.
fn address(
    manifest: &Manifest,
    arg: &ArgSpec,
    case: &Case,
    places: &Placements,
    image: &Image,
) -> Result<Arg, PlanError> {
    let none =
        || PlanError::NoBuffer { kernel: manifest.name.clone(), arg: manifest.arg_name(arg) };
    let kv = |name: &str, place: &Placement| {
        let own = manifest.reads_variable(&format!("{name}_stride_l"));
        let layer = if own { 0 } else { case.layer * place.stride(Axis::Layer) };
        image.element(name, place.offset() + layer)
    };
    let byte = match arg {
        ArgSpec::Null => return Ok(Arg::Null),
        ArgSpec::Scratch(index) => image.element(&manifest.scratch[*index].name, 0),
        ArgSpec::Pointer(Pointer::K) => kv("k", &places.k),
        ArgSpec::Pointer(Pointer::V) => kv("v", &places.v),
        ArgSpec::Pointer(Pointer::Sinks) if !case.sinks => return Ok(Arg::Null),
        ArgSpec::Pointer(p) => match image.buffer(p.name()).and_then(|b| b.tensor.as_ref()) {
            Some(tensor) => image.element(p.name(), tensor.place.offset()),
            None => return Err(none()),
        },
        ArgSpec::Scalar { .. } => return Err(none()),
    };
    Ok(Arg::Address(byte))
}
