//! placeholder
/// placeholder
pub fn kernel_tier() -> Result<(), String> {
    Err("not available in this version".into())
}
