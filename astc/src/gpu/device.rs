//! An opened GPU: every call is watched, so that a driver's failure is an error, never a panic.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{AdapterInfo, GpuError, SelfTest};

/// How long results may be on their way after the device said that its work is done.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// A GPU that is ready to decode.
#[derive(Debug)]
pub struct Gpu {
    info: AdapterInfo,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Why the device is gone, once it is.
    lost: Arc<OnceLock<String>>,
    /// The first error that no scope caught.
    uncaught: Arc<Mutex<Option<wgpu::Error>>>,
    self_test: OnceLock<SelfTest>,
}

/// Features that are used where the adapter has them.
const WELCOME: wgpu::Features = wgpu::Features::TEXTURE_COMPRESSION_ASTC
    .union(wgpu::Features::TEXTURE_COMPRESSION_ASTC_HDR)
    .union(wgpu::Features::TEXTURE_COMPRESSION_BC)
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP);

impl Gpu {
    pub(super) fn open(adapter: &wgpu::Adapter, info: AdapterInfo) -> Result<Self, GpuError> {
        if !info.compute_shaders {
            let reason = "it runs no compute shaders".to_owned();
            return Err(GpuError::Refused { adapter: info.label(), reason });
        }
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() & WELCOME,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) =
            wait(adapter.request_device(&descriptor)).map_err(|e| GpuError::Driver {
                adapter: info.label(),
                action: "open the device",
                message: e.to_string(),
            })?;
        let lost = Arc::new(OnceLock::new());
        let uncaught = Arc::new(Mutex::new(None));
        device.set_device_lost_callback({
            let lost = Arc::clone(&lost);
            move |reason, message| {
                // Only the first reason counts.
                let _ = lost.set(format!("{reason:?}: {message}"));
            }
        });
        device.on_uncaptured_error({
            let uncaught = Arc::clone(&uncaught);
            Arc::new(move |error| {
                uncaught.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            })
        });
        Ok(Self { info, device, queue, lost, uncaught, self_test: OnceLock::new() })
    }

    /// The adapter.
    pub const fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// What the self-test found; it runs on the first call.
    ///
    /// # Errors
    /// Those of [`SelfTest::run`]: a driver that fails, not one whose results are wrong.
    pub fn self_test(&self) -> Result<&SelfTest, GpuError> {
        if let Some(done) = self.self_test.get() {
            return Ok(done);
        }
        let found = SelfTest::run(self)?;
        Ok(self.self_test.get_or_init(|| found))
    }

    /// Throws the device away as a driver reset would: whatever is tried afterwards is
    /// [`GpuError::DeviceLost`].
    pub fn destroy(&self) {
        self.device.destroy();
        // The callback runs when the device is polled.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    /// Runs `work` and returns what it made, or the error that any of its calls raised; `action`
    /// says for the message what is attempted.
    pub(super) fn watched<T>(
        &self,
        action: &'static str,
        work: impl FnOnce() -> T,
    ) -> Result<T, GpuError> {
        let filters = [
            wgpu::ErrorFilter::Validation,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Internal,
        ];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let made = work();
        let mut caught = None;
        // Scopes are popped in the reverse of the order in which they were pushed.
        for scope in scopes.into_iter().rev() {
            caught = caught.or(wait(scope.pop()));
        }
        let uncaught = self.uncaught.lock().unwrap_or_else(PoisonError::into_inner).take();
        let raised = caught.or(uncaught);
        // A device may be lost for want of memory: that is the reason to name.
        if let Some(wgpu::Error::OutOfMemory { .. }) = raised {
            return Err(GpuError::OutOfMemory { adapter: self.info.label(), action });
        }
        if raised.is_some() {
            self.await_loss();
        }
        self.check_alive(action)?;
        match raised {
            None => Ok(made),
            Some(error) => Err(GpuError::Driver {
                adapter: self.info.label(),
                action,
                message: error.to_string(),
            }),
        }
    }

    /// What a lost device refuses may come before word of its loss: gives that a moment to come.
    fn await_loss(&self) {
        for _ in 0..20 {
            let _ = self.device.poll(wgpu::PollType::Poll);
            if self.lost.get().is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn check_alive(&self, action: &'static str) -> Result<(), GpuError> {
        self.lost.get().map_or(Ok(()), |reason| {
            let (adapter, reason) = (self.info.label(), reason.clone());
            Err(GpuError::DeviceLost { adapter, action, reason })
        })
    }

    pub(super) fn refused(&self, reason: impl Into<String>) -> GpuError {
        GpuError::Refused { adapter: self.info.label(), reason: reason.into() }
    }

    /// [`GpuError::OverLimit`] if `needed` is past `limit`.
    pub(super) fn check_limit(
        &self,
        what: &'static str,
        needed: u64,
        limit: u64,
    ) -> Result<(), GpuError> {
        if needed <= limit {
            return Ok(());
        }
        Err(GpuError::OverLimit { adapter: self.info.label(), what, needed, limit })
    }

    /// Bytes of the largest buffer that a shader can see.
    pub(super) fn max_bytes(&self) -> u64 {
        self.info.max_storage_bytes.min(self.info.max_buffer_bytes)
    }

    /// A buffer that shaders read, with `bytes` in it; an empty one gets 16 zero bytes, as no
    /// binding may be empty.
    pub(super) fn storage(
        &self,
        what: &'static str,
        bytes: &[u8],
    ) -> Result<wgpu::Buffer, GpuError> {
        self.buffer(what, bytes, wgpu::BufferUsages::STORAGE)
    }

    /// A small buffer of constants for one dispatch.
    pub(super) fn uniform(
        &self,
        what: &'static str,
        words: &[u32],
    ) -> Result<wgpu::Buffer, GpuError> {
        self.buffer(what, bytemuck::cast_slice(words), wgpu::BufferUsages::UNIFORM)
    }

    fn buffer(
        &self,
        what: &'static str,
        bytes: &[u8],
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, GpuError> {
        let bytes = if bytes.is_empty() { &[0; 16] } else { bytes };
        self.check_limit(what, bytes.len() as u64, self.max_bytes())?;
        let descriptor = wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes.len() as u64,
            usage: usage | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let buffer =
            self.watched("allocate a buffer", || self.device.create_buffer(&descriptor))?;
        self.watched("upload a buffer", || self.queue.write_buffer(&buffer, 0, bytes))?;
        Ok(buffer)
    }

    /// A buffer of `bytes` bytes that shaders write and [`read`](Self::read) reads.
    pub(super) fn output(&self, bytes: u64) -> Result<wgpu::Buffer, GpuError> {
        self.check_limit("an output buffer", bytes, self.max_bytes())?;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("output"),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        self.watched("allocate an output buffer", || self.device.create_buffer(&descriptor))
    }

    /// Compiles a compute shader; `layouts` are those of bind groups 0, 1, .., `None` for one that
    /// it does not use.
    pub(super) fn compute_pipeline(
        &self,
        source: &str,
        entry_point: &str,
        layouts: &[Option<&wgpu::BindGroupLayout>],
    ) -> Result<wgpu::ComputePipeline, GpuError> {
        let device = &self.device;
        self.watched("compile a shader", || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(entry_point),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(entry_point),
                bind_group_layouts: layouts,
                immediate_size: 0,
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry_point),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(entry_point),
                compilation_options: Default::default(),
                cache: None,
            })
        })
    }

    /// Runs a pipeline over `groups` workgroups across and down, as [`spread`](Self::spread) lays
    /// them out.
    pub(super) fn dispatch(
        &self,
        pipeline: &wgpu::ComputePipeline,
        bind_groups: &[Option<&wgpu::BindGroup>],
        groups: [u32; 2],
    ) -> Result<(), GpuError> {
        self.watched("run a compute shader", || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(pipeline);
                for (index, group) in bind_groups.iter().enumerate() {
                    if let Some(group) = group {
                        pass.set_bind_group(index as u32, *group, &[]);
                    }
                }
                pass.dispatch_workgroups(groups[0], groups[1], 1);
            }
            self.queue.submit([encoder.finish()]);
        })
    }

    /// Two dimensions that hold at least `groups` workgroups within the adapter's limit; shaders
    /// number them y · x-size + x and ignore those past the end.
    pub(super) fn spread(&self, groups: u64) -> [u32; 2] {
        let most = u64::from(self.device.limits().max_compute_workgroups_per_dimension);
        let down = groups.div_ceil(most).max(1);
        [groups.div_ceil(down) as u32, down as u32]
    }

    /// Copies the start of `buffer` into `out`, whose length must be a multiple of 4, when all
    /// work before is done.
    pub(super) fn read(&self, buffer: &wgpu::Buffer, out: &mut [u8]) -> Result<(), GpuError> {
        const ACTION: &str = "read results back";
        let size = out.len() as u64;
        let staging = wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let (answer, mapped) = mpsc::channel();
        let staging = self.watched(ACTION, || {
            let staging = self.device.create_buffer(&staging);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
            self.queue.submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                let _ = answer.send(result);
            });
            staging
        })?;
        let driver = |message: String| GpuError::Driver {
            adapter: self.info.label(),
            action: ACTION,
            message,
        };
        let polled =
            self.watched(ACTION, || self.device.poll(wgpu::PollType::wait_indefinitely()))?;
        polled.map_err(|e| driver(e.to_string()))?;
        // A thread that polls at the same time may have taken the answer, and still be on its way
        // to deliver it.
        match mapped.recv_timeout(ANSWER_TIME) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(driver(e.to_string())),
            Err(_) => return Err(driver("the driver never mapped the buffer".to_owned())),
        }
        let view = staging.get_mapped_range(..).map_err(|e| driver(e.to_string()))?;
        out.copy_from_slice(&view);
        Ok(())
    }
}

/// The result of a future that only ever waits for the driver, which answers at once or while
/// it is polled.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}
