//! Bind groups: what a shader's numbered bindings mean.

use super::GpuError;
use super::device::Gpu;

impl Gpu {
    /// A layout whose bindings 0, 1, .. have these types, for compute shaders.
    pub(super) fn bind_group_layout(
        &self,
        label: &'static str,
        types: &[wgpu::BindingType],
    ) -> Result<wgpu::BindGroupLayout, GpuError> {
        let entries: Vec<_> = (0..)
            .zip(types)
            .map(|(binding, &ty)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty,
                count: None,
            })
            .collect();
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries };
        self.watched("lay out bindings", || self.device.create_bind_group_layout(&descriptor))
    }

    /// A bind group with `resources` at bindings 0, 1, ..; it keeps them alive.
    pub(super) fn bind_group<const N: usize>(
        &self,
        label: &'static str,
        layout: &wgpu::BindGroupLayout,
        resources: [wgpu::BindingResource<'_>; N],
    ) -> Result<wgpu::BindGroup, GpuError> {
        let mut binding = 0..;
        let entries = resources.map(|resource| wgpu::BindGroupEntry {
            binding: binding.next().expect("invariant: the range has no end"),
            resource,
        });
        let descriptor =
            wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries };
        self.watched("bind buffers", || self.device.create_bind_group(&descriptor))
    }
}
