-- What BullMQ has not finished: its jobs wait in a list and run in another; a finished one is removed.
return redis.call('LLEN', 'bull:noop:wait') + redis.call('LLEN', 'bull:noop:active')
