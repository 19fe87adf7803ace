module scheduler

go 1.24
