/* What a lab guest runs, linked statically.
 *
 *   guest serve          prints READY, then HEARTBEAT n each second; echoes TCP port 7; swallows UDP port 9
 *   guest dirty MB RATE WORK  writes to MB mebibytes over and over, RATE MiB each second (0: as fast as it can), each page
 *                        after so many steps of reckoning, and checks on the way that every page still holds what was written to it last
 *   guest disk           writes to each block of the disk /dev/vda over and over, past its cache, and checks on the way that it still holds
 *                        what was written to it last; prints DISK n after each time
 *
 * The heartbeat counts in memory, so it goes on where it was after a move, and two running copies print the same
 * numbers twice. Flooded packets end in a full socket buffer that nobody reads: the cheapest end there is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 32

static int bound(int type, int port)
{
    int fd = socket(AF_INET, type, 0), on = 1;
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0)
        perror("bind");
    return fd;
}

static int echo(int fd)
{
    char bytes[4096];
    ssize_t got = read(fd, bytes, sizeof bytes);
    for (ssize_t done = 0; done < got;) {
        ssize_t put = write(fd, bytes + done, got - done);
        if (put <= 0)
            return 0;
        done += put;
    }
    return got > 0;
}

static void serve(void)
{
    struct pollfd fds[2 + CONNECTIONS_MAX];
    struct itimerspec second = { { 1, 0 }, { 1, 0 } };
    int count = 2, little = 1, discard = bound(SOCK_DGRAM, 9);
    uint64_t heartbeat = 0, ticks;

    setsockopt(discard, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    fds[0] = (struct pollfd){ bound(SOCK_STREAM, 7), POLLIN, 0 };
    listen(fds[0].fd, CONNECTIONS_MAX);
    fds[1] = (struct pollfd){ timerfd_create(CLOCK_MONOTONIC, 0), POLLIN, 0 };
    timerfd_settime(fds[1].fd, 0, &second, NULL);
    printf("READY\n");
    fflush(stdout);
    for (;;) {
        poll(fds, count, -1);
        if (fds[1].revents && read(fds[1].fd, &ticks, sizeof ticks) > 0) {
            printf("HEARTBEAT %lu\n", (unsigned long)++heartbeat);
            fflush(stdout);
        }
        for (int i = 2; i < count; i++)
            if (fds[i].revents && !echo(fds[i].fd)) {
                close(fds[i].fd);
                fds[i--] = fds[--count];
            }
        if (fds[0].revents) {
            int fd = accept(fds[0].fd, NULL, NULL);
            if (fd >= 0 && count < 2 + CONNECTIONS_MAX)
                fds[count++] = (struct pollfd){ fd, POLLIN, 0 };
            else if (fd >= 0)
                close(fd);
        }
    }
}

static int dirty(size_t mib, double rate, unsigned work)
{
    size_t pages = mib << 8;
    uint64_t *memory = calloc(pages, 4096), written = 0;
    struct timespec start, now;

    clock_gettime(CLOCK_MONOTONIC, &start);
    for (uint64_t round = 1;; round++)
        for (size_t page = 0; page < pages; page++) {
            if (memory[page * 512] != round - 1) {
                printf("CORRUPT page %zu\n", page);
                fflush(stdout);
                return 1;
            }
            for (volatile unsigned step = 0; step < work; step++)
                ;
            memory[page * 512] = round;
            if (rate > 0 && (++written & 255) == 0) {
                clock_gettime(CLOCK_MONOTONIC, &now);
                double passed = now.tv_sec - start.tv_sec + (now.tv_nsec - start.tv_nsec) / 1e9;
                double due = written / 256.0 / rate;
                if (due > passed)
                    usleep((due - passed) * 1e6);
            }
        }
}

static int disk(void)
{
    int fd = open("/dev/vda", O_RDWR | O_DIRECT);
    off_t size = lseek(fd, 0, SEEK_END);
    static uint64_t block[512] __attribute__((aligned(4096)));

    for (uint64_t round = 1; size > 0; round++) {
        for (off_t at = 0; at + (off_t)sizeof block <= size; at += sizeof block) {
            if (pread(fd, block, sizeof block, at) != sizeof block || block[0] != round - 1 || block[511] != round - 1) {
                printf("CORRUPT disk at %ld\n", (long)at);
                fflush(stdout);
                return 1;
            }
            block[0] = block[511] = round;
            if (pwrite(fd, block, sizeof block, at) != sizeof block)
                perror("CORRUPT disk");
        }
        printf("DISK %lu\n", (unsigned long)round);
        fflush(stdout);
    }
    printf("CORRUPT no disk\n");
    return 1;
}

int main(int count, char **words)
{
    if (count == 2 && !strcmp(words[1], "disk"))
        return disk();
    if (count == 5 && !strcmp(words[1], "dirty"))
        return dirty(atoi(words[2]), atof(words[3]), atoi(words[4]));
    serve();
}
