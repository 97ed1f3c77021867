//! The TDX module's own report of this machine, by `ioctl`, and the address family of its host.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

use crate::quote::TD_REPORT_LEN;

/// What gives TDREPORTs.
pub trait ReportSource: Send + Sync + fmt::Debug {
    /// A fresh TDREPORT bound to the report data.
    ///
    /// # Errors
    /// The system's reason; [`NotFound`](io::ErrorKind::NotFound) where the machine is no TDX guest.
    fn report(&self, report_data: &[u8; 64]) -> io::Result<Box<[u8; TD_REPORT_LEN]>>;
}

/// The guest driver's device, `/dev/tdx_guest`.
#[derive(Clone, Debug)]
pub(crate) struct Device(pub(crate) PathBuf);

/// `struct tdx_report_req` of the kernel's `linux/tdx-guest.h`.
#[repr(C)]
struct ReportRequest {
    report_data: [u8; 64],
    report: [u8; TD_REPORT_LEN],
}

const GET_REPORT0: Opcode = opcode::read_write::<ReportRequest>(b'T', 1);

impl ReportSource for Device {
    fn report(&self, report_data: &[u8; 64]) -> io::Result<Box<[u8; TD_REPORT_LEN]>> {
        let device = File::open(&self.0)?;
        let mut request = ReportRequest {
            report_data: *report_data,
            report: [0; TD_REPORT_LEN],
        };
        // SAFETY: The number says `_IOWR('T', 1, struct tdx_report_req)`: the kernel reads and writes that structure and
        // no more, and all of its bytes may have any value. A device that does not know the number refuses it.
        unsafe { ioctl(&device, Updater::<GET_REPORT0, _>::new(&mut request))? };
        Ok(Box::new(request.report))
    }
}

/// `struct sockaddr_vm` of the kernel's `linux/vm_sockets.h`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct VsockAddress {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

impl VsockAddress {
    pub(super) const fn new(cid: u32, port: u32) -> Self {
        Self {
            family: rustix::net::AddressFamily::VSOCK.as_raw(),
            reserved: 0,
            port,
            cid,
            flags: 0,
            zero: [0; 3],
        }
    }
}

// SAFETY: The function is given a pointer to this structure, which is what the system calls expect of the family that
// it names, and its length without padding.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        const LEN: SocketAddrLen = 16;
        const { assert!(size_of::<VsockAddress>() == 16) };
        call((&raw const *self).cast(), LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        // _IOWR('T', 1, 1088 bytes): direction 3, size 0x440, type 0x54, number 1.
        assert_eq!(GET_REPORT0, 0xc440_5401);
        assert_eq!(VsockAddress::new(2, 4050).family, 40);
    }

    #[test]
    fn another_device_refuses() {
        let error = Device("/dev/null".into()).report(&[0; 64]).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::NOTTY.raw_os_error())
        );
        let error = Device("/nowhere".into()).report(&[0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
