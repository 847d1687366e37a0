/* Preloaded: a worker begins when this name is given to its thread, and the second one takes three
 * seconds over it. For tests of what happens while a data plane starts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

int pthread_setname_np(pthread_t thread, const char *name)
{
    int (*real)(pthread_t, const char *) =
        (int (*)(pthread_t, const char *))dlsym(RTLD_NEXT, "pthread_setname_np");
    if (strcmp(name, "worker-1") == 0)
        sleep(3);
    return real(thread, name);
}
