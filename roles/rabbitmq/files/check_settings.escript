%% Reads a rabbitmq.conf as RabbitMQ itself does before it starts. RabbitMQ has no command for that.
%%
%% escript check_settings.escript FILE: ends with 0, or with 1 and what is wrong on standard output.
%% The first line is skipped by escript, so nothing may stand before these.

main([File]) ->
    Plugins = filelib:wildcard("/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins/*"),
    code:add_pathsa([Plugin ++ "/ebin" || Plugin <- Plugins]),
    logger:set_primary_config(level, critical),
    Schemas = [filelib:wildcard(Plugin ++ "/priv/schema/*.schema") || Plugin <- Plugins],
    case settings(cuttlefish_schema:files(lists:append(Schemas)), File) of
        ok -> ok;
        {wrong, Errors} ->
            [io:format("~ts~n", [cuttlefish_error:xlate(Error)]) || {error, Error} <- Errors],
            halt(1)
    end.

settings(Schema, File) ->
    case cuttlefish_conf:file(File) of
        {errorlist, Errors} -> {wrong, Errors};
        Settings ->
            case cuttlefish_generator:map(Schema, Settings) of
                {error, _Phase, {errorlist, Errors}} -> {wrong, Errors};
                _Configuration -> ok
            end
    end.
