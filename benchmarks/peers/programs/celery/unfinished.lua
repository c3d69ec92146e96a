-- What waits, and what a worker has taken without having acknowledged it.
return redis.call('LLEN', 'celery') + redis.call('HLEN', 'unacked')
