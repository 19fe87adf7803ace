;; A scheduler that behaves for 100 picks, which is more than the director tries it with, and then
;; never returns.
(module
  (memory (export "memory") 2)
  (global $picks (mut i32) (i32.const 0))

  (func (export "wvs_abi") (result i32)
    (i32.const 0x00010000))

  ;; 16 KiB for each kind of region.
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (if (result i32) (i32.gt_u (local.get $size) (i32.const 16384))
      (then (i32.const 0))
      (else (i32.mul (i32.add (local.get $kind) (i32.const 1)) (i32.const 16384)))))

  (func (export "wvs_schedule") (param $servers i32) (result i32)
    (global.set $picks (i32.add (global.get $picks) (i32.const 1)))
    (if (i32.gt_u (global.get $picks) (i32.const 100))
      (then (loop $for_ever (br $for_ever))))
    (i32.rem_u (global.get $picks) (local.get $servers))))
