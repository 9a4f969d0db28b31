/* Parts of a card: green contexts of the driver, whose streams keep to some of its multiprocessors. */
#ifndef MHP_CORE_DEVICE_CUDA_PARTITION_H
#define MHP_CORE_DEVICE_CUDA_PARTITION_H

/* How many multiprocessors a CUDA stream (cudaStream_t) keeps to; 0: it may use all of the card. Any thread. */
int mhp_cuda_stream_processors(void *native);

#endif
