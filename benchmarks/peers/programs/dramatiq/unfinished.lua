-- A message is kept here from the enqueue to its acknowledgement, wherever its id is meanwhile.
return redis.call('HLEN', 'dramatiq:default.msgs')
