//! The tensors of a sealed model.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::os::unix::ffi::OsStrExt;

use modelseal::safetensors::{Dtype, SafeTensors, TensorInfo};

use crate::boundary::{Out, OutStruct, boundary, bytes_mut, free, infallible, path, text};
use crate::error::{Error, Failure};
use crate::handle::{self, Object};
use crate::model::Model;
use crate::status;

/// The tensors of a sealed model, sorted by name. Any number of threads may use it; it lives on when the model is freed.
#[derive(Debug)]
pub struct Tensors(SafeTensors);

impl Object for Tensors {
    const NAME: &'static str = "set of tensors";
}

/// What is known of a tensor. What it points at lives as long as the tensors that it came from.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    /// Its name, in UTF-8, without a NUL behind it.
    pub name: *const c_char,
    /// Length of the name in bytes.
    pub name_len: usize,
    /// What its elements are, such as "BF16": as the safetensors format has it, with a NUL behind it.
    pub dtype: *const c_char,
    /// Bits that an element takes.
    pub bits: usize,
    /// Its dimensions; of a single number there are none.
    pub shape: *const usize,
    /// How many dimensions it has.
    pub dimensions: usize,
    /// Its length in bytes.
    pub len: u64,
    /// Where it begins in its file, in bytes.
    pub offset: u64,
    /// The path in the model of the file that it is in: any bytes, without a NUL behind them.
    pub file: *const c_char,
    /// Length of that path in bytes.
    pub file_len: usize,
}

/// Reads what tensors there are: those of a safetensors file, of the files that an index (`*.index.json`) names, or of a
/// directory, "" being the root of the model.
///
/// # Safety
/// `path` must be `path_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `tensors` and `error` must
/// be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_tensors_open(
    model: *const Model,
    path: *const c_char,
    path_len: usize,
    tensors: *mut *mut Tensors,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (path, out) = unsafe {
            (
                self::path(path, path_len, "the path")?,
                Out::new(tensors, "tensors")?,
            )
        };
        let model = handle::get(model)?;
        out.hand_over(Tensors(SafeTensors::open(&model.model, path)?))
    })
}

/// Frees tensors. NULL is nothing.
///
/// # Safety
/// None of what a `modelseal_tensor` of them points at may be read any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_tensors_free(tensors: *mut Tensors) {
    free(tensors);
}

/// How many tensors there are; 0 where `tensors` are none.
///
/// # Safety
/// Anything may be passed: what is no handle is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_tensors_count(tensors: *const Tensors) -> usize {
    infallible(0, || handle::get(tensors).map_or(0, |tensors| tensors.0.len()))
}

/// The index of the tensor of that name. `MODELSEAL_TENSORS` where there is none.
///
/// # Safety
/// `name` must be `name_len` bytes, or end with a NUL where that is `MODELSEAL_NUL_TERMINATED`; `index` and `error` must
/// be valid for writing; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_tensors_find(
    tensors: *const Tensors,
    name: *const c_char,
    name_len: usize,
    index: *mut usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let (name, out) = unsafe { (text(name, name_len, "the name")?, Out::new(index, "index")?) };
        out.set(handle::get(tensors)?.0.index_of(name)?);
        Ok(())
    })
}

/// What is known of the tensor at `index`, counted from 0 in the order of the names.
///
/// # Safety
/// `tensor` must be `tensor_len` bytes, which is `sizeof(modelseal_tensor)`; `error` must be valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_tensors_get(
    tensors: *const Tensors,
    index: usize,
    tensor: *mut Tensor,
    tensor_len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { OutStruct::new(tensor, tensor_len, "tensor")? };
        let tensors = handle::get(tensors)?;
        let info = tensors.info(index)?;
        let file = info.shard.as_os_str().as_bytes();
        out.set(Tensor {
            name: info.name.as_ptr().cast(),
            name_len: info.name.len(),
            dtype: dtype_name(info.dtype)?.as_ptr(),
            bits: info.dtype.bitsize(),
            shape: info.shape.as_ptr(),
            dimensions: info.shape.len(),
            len: info.byte_len(),
            offset: info.range.start,
            file: file.as_ptr().cast(),
            file_len: file.len(),
        });
        Ok(())
    })
}

/// Fills `data` with the bytes of the tensor at `index`, which are as many as its `len` says. After any status but
/// `MODELSEAL_OK` of reading, all of `data` is zero.
///
/// # Safety
/// `data` must be `len` bytes that nobody else uses until this returns; `error` must be valid for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_tensors_read(
    tensors: *const Tensors,
    index: usize,
    data: *mut u8,
    len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { bytes_mut(data, len, "data")? };
        let tensors = handle::get(tensors)?;
        Ok(tensors.0.read_into(tensors.info(index)?.name, out)?)
    })
}

/// Fills `data` with some rows of the tensor at `index`: slices of its first dimension, from the one at `begin` up to and
/// without the one at `end`. Nothing else is decrypted but what shares a chunk with them. After any status but
/// `MODELSEAL_OK` of reading, all of `data` is zero.
///
/// # Safety
/// `data` must be `len` bytes that nobody else uses until this returns, as many as the rows have; `error` must be valid
/// for writing, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn modelseal_tensors_read_rows(
    tensors: *const Tensors,
    index: usize,
    begin: usize,
    end: usize,
    data: *mut u8,
    len: usize,
    error: *mut *mut Error,
) -> i32 {
    boundary(error, || {
        // SAFETY: as the caller vouches.
        let out = unsafe { bytes_mut(data, len, "data")? };
        let tensors = handle::get(tensors)?;
        Ok(tensors.0.read_rows(tensors.info(index)?.name, begin..end, out)?)
    })
}

impl Tensors {
    fn info(&self, index: usize) -> Result<TensorInfo<'_>, Failure> {
        self.0.at(index).ok_or_else(|| {
            let text = format!("there is no tensor {index}, but {}", self.0.len());
            Failure::argument(text)
        })
    }
}

macro_rules! dtype_names {
    ($($dtype:ident)*) => {
        /// What the safetensors format calls a type of elements.
        fn dtype_name(dtype: Dtype) -> Result<&'static CStr, Failure> {
            let name = match dtype {
                $(Dtype::$dtype => concat!(stringify!($dtype), "\0"),)*
                _ => {
                    let text = format!("elements of type {dtype:?} are not supported");
                    return Err(Failure::new(status::MODELSEAL_UNSUPPORTED, text));
                }
            };
            Ok(CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or_default())
        }
    };
}

dtype_names! {
    BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64
    I64 U64
}
