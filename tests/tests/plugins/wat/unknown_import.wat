;; Wants a file from the first version of WASI but one.
(module
  (import "wasi_unstable" "fd_read"
    (func (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.mul (i32.const 4096) (i32.add (i32.const 1) (local.get $kind))))
  (func (export "wvs_schedule") (param $n i32) (result i32) (i32.const 0)))
